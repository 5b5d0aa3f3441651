"""Encode the rows of a part as CSV or JSON lines.

Where the input has the same format and all its columns stay, a row is the bytes of its record with the prediction
behind them: no value is spelled anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headrace.catalog.class_labels import PREDICTION, by_label, name_labels, name_prediction_columns
from headrace.catalog.contract import Output
from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.columns import ERROR, output_columns
from headrace_worker.bulk.encoders import Encoder, ParquetEncoder, PartRows
from headrace_worker.bulk.receipts import PartReceipt
from headrace_worker.bulk.slices import Slice
from headrace_worker.bulk.sources import FileForm, read_form, read_partitions
from headrace_worker.bulk.text_file import split_cells
from headrace_worker.runtimes.prediction_column import to_json_values


@contextmanager
def open_encoder(sink: BinaryIO, form: FileForm, step: ChunkStep, output: Output | None) -> Iterator[Encoder]:
    """Open the encoder of a format, with the compression that the name of the part says."""
    if form.format == "parquet":
        encoder = ParquetEncoder(sink, step)
        try:
            yield encoder
        finally:
            encoder.close()
    elif form.compression is None:
        yield _open_text(sink, form, step, output)
    else:
        with pa.CompressedOutputStream(pa.PythonFile(_StaysOpen(sink), mode="w"), form.compression) as stream:
            yield _open_text(stream, form, step, output)


class _StaysOpen:
    """A file that the stream which is written to it does not close."""

    closed = False

    def __init__(self, sink: BinaryIO) -> None:
        self.write, self.flush, self.tell = sink.write, sink.flush, sink.tell

    def close(self) -> None:
        """Do nothing."""


def _open_text(sink: BinaryIO, form: FileForm, step: ChunkStep, output: Output | None) -> Encoder:
    return CsvEncoder(sink, form, step, output) if form.format == "csv" else JsonEncoder(sink, step, output)


class CsvEncoder:
    """Writes CSV: the columns that are kept, the columns of the prediction, and `error`."""

    def __init__(self, sink: BinaryIO, form: FileForm, step: ChunkStep, output: Output | None) -> None:
        self._sink, self._step = sink, step
        self._delimiter = form.delimiter
        self._names = name_prediction_columns(output) if output else (PREDICTION,)
        self._keeps_records = step.keep is None and read_form(step.input).format == "csv"
        self._has_header = False

    def add(self, rows: PartRows) -> None:
        """Write rows."""
        piece = rows.slice
        header = piece.header if self._keeps_records else None
        delimiter = self._delimiter or (header.delimiter if header else ",")
        if header is not None:
            names = [name for name in read_partitions(self._step.input) if name not in header.names]
        else:
            names = output_columns(piece.rows, self._step)
        if not self._has_header:
            added = [_quote(name, delimiter) for name in (*names, *self._names, ERROR)]
            text = header.text.decode() + delimiter if header else ""
            self._sink.write((text + delimiter.join(added) + "\n").encode())
            self._has_header = True
        columns = [_to_csv(piece.rows.column(name), delimiter) for name in names]
        columns += self._predictions(rows.predictions, delimiter)
        columns.append(_to_csv(rows.errors, delimiter))
        joined = pc.binary_join_element_wise(*columns, delimiter, null_handling="replace", null_replacement="")
        tails = pc.binary_join_element_wise(joined, "\n", "").cast(pa.binary()).to_pylist()
        if header is None or piece.records is None:
            self._sink.write(b"".join(tails))
            return
        records: Sequence[bytes] = piece.records
        if piece.refused:
            records = [
                _mend(record, header.names, delimiter) if index in piece.refused else record
                for index, record in enumerate(records)
            ]
        separator = delimiter.encode()
        self._sink.write(
            b"".join([text for pair in zip(records, tails, strict=True) for text in (pair[0], separator, pair[1])])
        )

    def finish(self, receipt: PartReceipt) -> None:  # noqa: ARG002  # it lies beside the part
        """Write a header if there was no row."""
        if not self._has_header:
            self._sink.write((",".join([*self._names, ERROR]) + "\n").encode())

    def _predictions(self, predictions: Any, delimiter: str) -> list[Any]:
        """Return a column of texts for each value of a prediction."""
        if len(self._names) == 1:
            if pa.types.is_nested(predictions.type) or isinstance(predictions.type, pa.BaseExtensionType):
                values = [_unwrap(value) for value in to_json_values(predictions)]
                return [_to_csv(pa.array([_to_text(value) for value in values], pa.string()), delimiter)]
            return [_to_csv(predictions, delimiter)]
        rows = predictions.to_pylist() if pa.types.is_list(predictions.type) else to_json_values(predictions)
        width = len(self._names)
        cells = zip(*[row if row is not None else [None] * width for row in rows], strict=True) if rows else ()
        return [
            _to_csv(pa.array([_to_text(value) for value in column], pa.string()), delimiter) for column in cells
        ]


class JsonEncoder:
    """Writes JSON lines: the keys of the input, `prediction` and `error`."""

    def __init__(self, sink: BinaryIO, step: ChunkStep, output: Output | None) -> None:
        self._sink, self._step = sink, step
        self._labels = name_labels(output.column_classes) if output else None
        self._is_from_json = read_form(step.input).format == "jsonl"

    def add(self, rows: PartRows) -> None:
        """Write rows."""
        encode = msgspec.json.Encoder(enc_hook=str).encode
        predictions = to_json_values(rows.predictions)
        if self._labels is not None:
            predictions = [by_label(self._labels, prediction) for prediction in predictions]
        heads = self._heads(rows.slice)
        lines = [
            b'%b"prediction":%b,"error":%b}\n' % (head, encode(prediction), encode(error))
            for head, prediction, error in zip(heads, predictions, rows.errors.to_pylist(), strict=True)
        ]
        self._sink.write(b"".join(lines))

    def finish(self, receipt: PartReceipt) -> None:  # it lies beside the part
        """Do nothing: no row is buffered."""

    def _heads(self, piece: Slice) -> list[bytes]:
        """Return the beginning of each line's object, up to a comma or the opening brace."""
        if not self._is_from_json or piece.records is None:
            names = output_columns(piece.rows, self._step)
            return [_open_object(row) for row in piece.rows.select(names).to_pylist()]
        partitions = read_partitions(self._step.input)
        if self._step.keep is None and not partitions and not piece.refused:
            return [_reopen(record) for record in piece.records]
        heads: list[bytes] = []
        for record in piece.records:
            row = {**partitions, **_read_object(record)}
            row.pop(PREDICTION, None)
            row.pop(ERROR, None)
            if self._step.keep is not None:
                row = {name: row[name] for name in row if name in (*self._step.keep, self._step.key)}
            heads.append(_open_object(row))
        return heads


def _reopen(record: bytes) -> bytes:
    """Return a record without its closing brace, ready for the next key."""
    if not (record.startswith(b"{") and record.endswith(b"}")):
        return _open_object(_read_object(record))
    head = record[:-1].rstrip()
    return head if head == b"{" else head + b","


def _open_object(row: dict[str, Any]) -> bytes:
    head = msgspec.json.encode(row, enc_hook=str)[:-1]
    return head + b"," if len(head) > 1 else head


def _read_object(record: bytes) -> dict[str, Any]:
    """Return the values of an object as they are spelled, of another value as `instance`, and nothing else."""
    try:
        return msgspec.json.decode(record, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return {"instance": msgspec.json.decode(record)}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _to_csv(column: Any, delimiter: str) -> Any:
    """Return a column as texts of cells, in quotes where they need them; null stays null."""
    if pa.types.is_nested(column.type) or isinstance(column.type, pa.BaseExtensionType):
        column = pa.array([_to_text(value) for value in to_json_values(column)], pa.string())
    is_number = pa.types.is_primitive(column.type) and not pa.types.is_temporal(column.type)
    texts = column if pa.types.is_string(column.type) else column.cast(pa.string())
    if is_number:
        return texts
    needs_quotes = pc.match_substring_regex(texts, f'["\n\r{delimiter}]')
    if not pc.any(needs_quotes).as_py():
        return texts
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")
    return pc.if_else(needs_quotes, quoted, texts)


def _to_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value, enc_hook=str).decode()


def _unwrap(value: Any) -> Any:
    """Return the value in a list of one value."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _quote(text: str, delimiter: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in f'"\n\r{delimiter}') else text


def _mend(record: bytes, names: Sequence[str], delimiter: str) -> bytes:
    """Return the record of a refused row with as many cells as the header has, as UTF-8."""
    cells = split_cells(record.decode("utf-8", "replace"), delimiter)[: len(names)]
    cells += [""] * (len(names) - len(cells))
    return delimiter.join(_quote(cell, delimiter) for cell in cells).encode()
