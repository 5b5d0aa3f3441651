"""Read a file row by row: CSV or JSON lines, from a path or standard input, one line in memory at a time."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from headrace.batch.columns import Columns, match_columns
from headrace.catalog.contract import Contract, Named
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput

Format = Literal["csv", "jsonl"]

#: File endings and what they say: a format, and for CSV a delimiter.
ENDINGS: dict[str, tuple[Format, str | None]] = {
    ".csv": ("csv", None),
    ".tsv": ("csv", "\t"),
    ".jsonl": ("jsonl", None),
    ".ndjson": ("jsonl", None),
}

#: Bytes a line may have, and characters a cell: past that, a file is no table of rows.
_LONGEST = 16 * 1024 * 1024
_DELIMITERS = (",", ";", "\t", "|")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the file: what it held, and the instance to predict on, or why there is none."""

    #: Number of the line it begins on, from 1.
    line: int
    #: Its cells or keys as they were, to be written again in front of the prediction.
    values: dict[str, Any]
    instance: Any = None
    error: str | None = None
    #: Bytes it took, and bytes of the file read when it ended.
    size: int = 0
    end: int = 0


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A file being read."""

    #: The columns of a CSV; None for JSON lines, whose rows may each have keys of their own.
    columns: tuple[str, ...] | None
    delimiter: str
    rows: Iterator[Row]


def format_of(path: str, given: Format | None) -> Format:
    """The format a path's ending names, else the one given. Raises InvalidInput if neither says."""
    named = ENDINGS.get(Path(path).suffix.lower())
    if named:
        return named[0]
    if given is None:
        what = (
            "standard input and output have no file ending" if path == "-" else f"the ending of {path} names none"
        )
        raise InvalidInput(
            f"which format? {what}; say --format csv or --format jsonl ({', '.join(ENDINGS)} need not)"
        )
    return given


def read_table(
    file: BinaryIO,
    kind: Format,
    contract: Contract,
    *,
    name: str,
    delimiter: str | None = None,
    chosen: Sequence[str] = (),
) -> Table:
    """The rows of a file, typed and checked by the contract; those that do not fit carry their error.

    A CSV's columns are matched with the contract here and now. Raises InvalidInput, also while rows are
    drawn, for a file that is no UTF-8 text, has no end to a line, or lacks a column.
    """
    lines = _Lines(file, name)
    if kind == "jsonl":
        return Table(columns=None, delimiter=",", rows=_json_rows(lines, contract, chosen))
    return _csv(lines, contract, delimiter, chosen)


class _Lines:
    """The lines of a file as text, with the number and the end of the last one drawn."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.number = 0
        self.end = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(_LONGEST + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > _LONGEST:
            raise InvalidInput(f"{self.name}, line {self.number} is longer than {_LONGEST // 1024**2} MB")
        self.end += len(line)
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(self._not_utf8(line, error.start)) from None

    def _not_utf8(self, line: bytes, start: int) -> str:
        utf16 = line.startswith((b"\xff\xfe", b"\xfe\xff"))
        if b"\0" in line and not utf16:
            return (
                f"{self.name} is no text file: line {self.number}, byte {start + 1} of it is 0x{line[start]:02x}"
            )
        guess = "UTF-16" if utf16 else "LATIN1"
        return (
            f"{self.name} is not UTF-8: line {self.number}, byte {start + 1} of it is 0x{line[start]:02x}; "
            f"save it as UTF-8, or `iconv -f {guess} -t UTF-8` if that is what it is"
        )


def _csv(lines: _Lines, contract: Contract, delimiter: str | None, chosen: Sequence[str]) -> Table:
    # A cell may hold a long text; the module's own limit is 128 KB, and one for the whole process.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
    first = next(lines, "")
    if not first.strip():
        raise InvalidInput(f"{lines.name} is empty: a CSV begins with a line of column names")
    delimiter = delimiter or _sniff(first)
    reader = csv.reader(_chained(first, lines), delimiter=delimiter, strict=True)
    try:
        header = _next(reader, lines) or []
        columns = match_columns(contract, header, chosen)
    except csv.Error as error:
        raise InvalidInput(f"{lines.name}: the line of column names cannot be read as CSV: {error}") from None
    except InvalidInput as error:
        raise type(error)(f"{lines.name}: {error}") from None
    return Table(
        columns=tuple(header),
        delimiter=delimiter,
        rows=_csv_rows(reader, lines, header, columns, contract),
    )


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _sniff(line: str) -> str:
    """The delimiter that cuts the first line in most pieces; a comma where nothing does."""
    return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([line], delimiter=delimiter))))


def _next(reader: Iterator[list[str]], lines: _Lines) -> list[str] | None:
    """The next row of cells, None at the end. Raises csv.Error for a broken row, InvalidInput for the file."""
    try:
        return next(reader, None)
    except csv.Error as error:
        if "limit" not in str(error) and "end of data" not in str(error):
            raise
        raise InvalidInput(
            f"{lines.name}: a quote is opened and not closed before line {lines.number}, or a cell is longer than "
            f"{_LONGEST // 1024**2} MB"
        ) from None


def _csv_rows(
    reader: Iterator[list[str]], lines: _Lines, header: list[str], columns: Columns, contract: Contract
) -> Iterator[Row]:
    width = len(header)
    while True:
        line, start = lines.number + 1, lines.end
        try:
            cells = _next(reader, lines)
        except csv.Error as error:
            problem = f"the row cannot be read as CSV: {error}"
            yield Row(line=line, values={}, error=problem, size=lines.end - start, end=lines.end)
            continue
        if cells is None:
            return
        if not cells:
            continue  # an empty line
        given = dict(zip(header, cells, strict=False))
        where: dict[str, Any] = {"line": line, "size": lines.end - start, "end": lines.end}
        if len(cells) != width:
            problem = f"the row has {len(cells)} cells, and the file {width} columns"
            yield Row(values=given, error=problem, **where)
        else:
            yield checked_row(contract, Row(values=given, instance=columns.instance(cells), **where))


def checked_row(contract: Contract, row: Row) -> Row:
    """The row with its instance as it will be sent, or with the error that keeps it from being sent."""
    try:
        (instance,) = check_instances(contract, [row.instance])
    except InvalidInput as error:
        return msgspec.structs.replace(row, instance=None, error=row_error(contract, str(error)))
    return row if instance is row.instance else msgspec.structs.replace(row, instance=instance)


def row_error(contract: Contract, message: str) -> str:
    """An error about the only instance of a job, said of a row: without the model and the instance's number."""
    return message.removeprefix(f"{contract.model}@{contract.version}: ").replace("instance 0: ", "")


def _json_rows(lines: _Lines, contract: Contract, chosen: Sequence[str]) -> Iterator[Row]:
    for text in lines:
        if not text.strip():
            continue
        where: dict[str, Any] = {"line": lines.number, "size": len(text), "end": lines.end}
        try:
            value = _json(text)
        except (ValueError, RecursionError):
            yield Row(values={}, error="the line is no JSON value", **where)
            continue
        given = value if isinstance(value, dict) else {"instance": value}
        try:
            instance = _instance(contract, value, chosen)
        except InvalidInput as error:
            yield Row(values=given, error=str(error), **where)
        else:
            yield checked_row(contract, Row(values=given, instance=instance, **where))


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        # Python's own json writes NaN and Infinity, which JSON has not; the second round makes null of them.
        return msgspec.json.decode(msgspec.json.encode(json.loads(text)))


def _instance(contract: Contract, value: Any, chosen: Sequence[str]) -> Any:
    """The instance in a line: of an object only what the contract knows, the rest is carried along."""
    if not isinstance(value, dict):
        return value
    if isinstance(contract.input, Named):
        names = [feature.name for feature in contract.input.features]
        # With a name missing, the whole object goes to the check: it knows near names.
        return {name: value[name] for name in names} if all(name in value for name in names) else value
    keys = list(chosen) or [key for key in ("instance", "text") if key in value][:1] or list(value)
    if len(keys) != 1 or keys[0] not in value:
        raise InvalidInput("which key of the object holds the instance? name it `instance`, or say --column KEY")
    return value[keys[0]]


@contextmanager
def open_source(path: str) -> Iterator[BinaryIO]:
    """The file to read, `-` for standard input, which stays open. Raises InvalidInput naming the path."""
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb", buffering=1024 * 1024)  # noqa: SIM115  # closed by the `with` below
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    with file:
        yield file
