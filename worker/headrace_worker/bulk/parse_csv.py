"""Parse records of a CSV into columns with the types of the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from headrace.errors import InvalidInput
from headrace.text import MISSING_TEXTS
from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.columns import describe_kind, needed_types
from headrace_worker.bulk.records import Records, is_utf8, to_texts
from headrace_worker.bulk.sources import read_form
from headrace_worker.bulk.text_file import NO_NEWLINES, Header, split_cells

_TRUE, _FALSE = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")


class CsvParser:
    """Parses records with one header."""

    def __init__(self, header: Header, schema: Any, step: ChunkStep) -> None:
        self._header = header
        is_same_format = read_form(step.output).format == "csv" and step.keep is None
        self._types = needed_types(header.names, schema, step, all_columns=not is_same_format)
        self._nullable = {field.name for field in schema if field.nullable} if schema is not None else set()

    def parse(self, records: Records, first: int, last: int) -> tuple[Any, dict[int, str]]:
        """Return the columns of records, and the rows that are refused, by their index. They have nulls."""
        data = records.data[records.starts[first] : records.ends[last - 1]] + b"\n"
        misfits: dict[int, str] = {}
        if not is_utf8(data):
            data, misfits = self._replace_misfits(to_texts(records, first, last))
        # Texts are read as bytes: whether they are UTF-8, a look at the column decides.
        fast = {name: pa.binary() if _is_text(kind) else kind for name, kind in self._types.items()}
        try:
            table, refused = self._read(data, fast, last - first)
        except pa.ArrowInvalid:
            try:
                table, refused = self._read(data, dict.fromkeys(self._types, pa.binary()), last - first)
            except pa.ArrowInvalid:
                raise InvalidInput(NO_NEWLINES) from None
        refused |= misfits
        columns = []
        for name, kind in self._types.items():
            column = table.column(name).combine_chunks()
            if column.type != kind:
                column = self._convert(name, column, kind, refused)
            columns.append(column)
        if not columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * (last - first), pa.struct([]))), refused
        return pa.RecordBatch.from_arrays(columns, names=list(self._types)), refused

    def _read(self, data: bytes, types: dict[str, Any], rows: int) -> tuple[Any, dict[int, str]]:
        """Read records as a table. A record with another number of cells is a row of nulls."""
        refused: dict[int, str] = {}

        def skip(row: Any) -> str:
            refused[row.number - 1] = _describe_misfit(row.actual_columns, row.expected_columns)
            return "skip"

        table = csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(
                column_names=self._header.names, use_threads=False, block_size=max(len(data) + 1, 1024)
            ),
            parse_options=csv.ParseOptions(
                delimiter=self._header.delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=csv.ConvertOptions(
                column_types=types,
                include_columns=list(types) or self._header.names[:1],
                null_values=sorted(MISSING_TEXTS),
                true_values=[form for word in _TRUE for form in (word, word.title(), word.upper())],
                false_values=[form for word in _FALSE for form in (word, word.title(), word.upper())],
                strings_can_be_null=False,
            ),
        )
        if table.num_rows + len(refused) != rows:
            raise InvalidInput(NO_NEWLINES)
        if refused:
            read_rows = iter(range(table.num_rows))
            indices = [None if row in refused else next(read_rows) for row in range(rows)]
            table = table.take(pa.array(indices, pa.int64()))
        return table, refused

    def _replace_misfits(self, lines: list[bytes]) -> tuple[bytes, dict[int, str]]:
        """Empty the records that are not UTF-8 and have another number of cells: pyarrow cannot report those.

        Return all records, and the emptied ones with their errors, by their index.
        """
        expected, delimiter = len(self._header.names), self._header.delimiter
        misfits: dict[int, str] = {}
        for index, line in enumerate(lines):
            text = line.decode(errors="replace")
            if "\ufffd" in text and (cells := len(split_cells(text, delimiter))) != expected:
                misfits[index] = _describe_misfit(cells, expected)
                lines[index] = delimiter.join(['""'] * expected).encode()
        return b"\n".join(lines) + b"\n", misfits

    def _convert(self, name: str, column: Any, kind: Any, refused: dict[int, str]) -> Any:
        """Convert a column of bytes. A value that does not convert becomes null, and its row is refused."""
        texts = _Caster(lambda values: values.cast(pa.string()), pa.string(), refused, f"{name!r} is not UTF-8")(
            column
        )
        if _is_text(kind):
            is_missing = pc.equal(texts, "")
            if name in self._nullable:
                is_missing = pc.is_in(pc.utf8_trim_whitespace(texts), value_set=pa.array(sorted(MISSING_TEXTS)))
            texts = pc.if_else(is_missing, None, texts)
            return texts if kind == pa.string() else texts.cast(kind)
        trimmed = pc.utf8_trim_whitespace(texts)
        present = pc.if_else(pc.is_in(trimmed, value_set=pa.array(sorted(MISSING_TEXTS))), None, trimmed)
        if pa.types.is_temporal(kind):
            # What the file spells in another way than Arrow reads, the check of the contract reads row by row.
            try:
                return present.cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                return present
        return _Caster(
            lambda values: _parse(values, kind), kind, refused, f"{name!r} must be {describe_kind(kind)}"
        )(present)


def _describe_misfit(cells: int, expected: int) -> str:
    return f"the row has {cells} cells, and the header has {expected}"


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _parse(values: Any, kind: Any) -> Any:
    if pa.types.is_integer(kind):  # pandas writes whole numbers beside missing ones as 1.0, 2.0
        try:
            return values.cast(kind)
        except pa.ArrowInvalid:
            return values.cast(pa.float64()).cast(kind)
    if pa.types.is_boolean(kind):
        words = pc.utf8_lower(values)
        is_true = pc.is_in(words, value_set=pa.array(_TRUE))
        is_false = pc.is_in(words, value_set=pa.array(_FALSE))
        if not pc.all(pc.or_(pc.or_(is_true, is_false), pc.is_null(words))).as_py():
            raise pa.ArrowInvalid("no boolean")
        return pc.if_else(pc.is_null(words), None, is_true)
    return values.cast(kind)


class _Caster(NamedTuple):
    """Casts a column, and halves it where that fails, until the values that do not convert are alone."""

    cast: Callable[[Any], Any]
    kind: Any
    refused: dict[int, str]
    message: str

    def __call__(self, column: Any, first: int = 0) -> Any:
        """Return the column. Refuse rows that do not convert; `first` is the number of the first row."""
        try:
            return self.cast(column)
        except pa.ArrowInvalid:
            if len(column) == 1:
                self.refused.setdefault(first, self.message)
                return pa.nulls(1, self.kind)
        middle = len(column) // 2
        return pa.concat_arrays([self(column[:middle], first), self(column[middle:], first + middle)])
