"""Reads a file row by row: CSV or JSON lines, from a path or standard input, with one line in memory at a time."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

import msgspec

from headrace.batch.columns import Columns, match_columns
from headrace.catalog.contract import Contract, Named
from headrace.catalog.validation import check_instances
from headrace.errors import InvalidInput
from headrace.text import nearest_name

Format = Literal["csv", "jsonl"]

#: The format and, for CSV, the delimiter of each file ending.
ENDINGS: dict[str, tuple[Format, str | None]] = {
    ".csv": ("csv", None),
    ".tsv": ("csv", "\t"),
    ".jsonl": ("jsonl", None),
    ".ndjson": ("jsonl", None),
}

#: The most bytes of a line, and characters of a cell. A longer line means that the file is not a table of rows.
MAX_LINE_BYTES = 16 * 1024 * 1024
#: Bytes that are read at a time.
_CHUNK_BYTES = 1024 * 1024
#: Seconds without input after which what was read is sent.
IDLE_SECONDS = 0.2
_DELIMITERS = (",", ";", "\t", "|")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the file: its values, and the instance to predict on or the error."""

    #: The number of its first line, from 1.
    line: int
    #: Its cells or keys as they are in the file. They are written in front of the prediction.
    values: dict[str, Any]
    instance: Any = None
    #: The reason why it is not sent; None for a valid row.
    error: str | None = None
    #: The bytes it takes in the file, and the bytes of the file up to its end.
    size: int = 0
    end: int = 0


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """An open file with its columns and rows."""

    #: The columns of a CSV; None for JSON lines, where each row may have other keys.
    columns: tuple[str, ...] | None
    delimiter: str
    rows: Iterator[Row]
    #: The lines from which the rows are read.
    lines: Lines
    #: The columns of a CSV that are sent; None for JSON lines.
    sent: Columns | None = None


def choose_format(path: str, default: Format | None) -> Format:
    """Return the format of a path's ending, else the default. Raises InvalidInput if there is neither."""
    ending = Path(path).suffix.lower()
    if ending in ENDINGS:
        return ENDINGS[ending][0]
    if default is None:
        problem = (
            "standard input and output have no file ending" if path == "-" else f"the ending of {path} names none"
        )
        raise InvalidInput(
            f"which format? {problem}; say --format csv or --format jsonl (not needed for {', '.join(ENDINGS)})"
        )
    return default


def read_table(
    file: BinaryIO,
    file_format: Format,
    contract: Contract,
    *,
    name: str,
    delimiter: str | None = None,
    column_names: Sequence[str] = (),
) -> Table:
    """Open the rows of a file, typed and checked by the contract; rows that do not fit have an error.

    `name` is the file's name for messages. `column_names` are the columns of a list or text (`match_columns`). The
    columns of a CSV are matched with the contract at once. Raises InvalidInput, also while the rows are read, for
    a file that is not UTF-8 text, has an endless line, or lacks a column.
    """
    lines = Lines(file, name)
    if file_format == "jsonl":
        rows = _read_json_rows(lines, contract, column_names)
        return Table(columns=None, delimiter=",", rows=rows, lines=lines)
    return _read_csv(lines, contract, delimiter, column_names)


class Lines:
    """An iterator over the lines of a file as text, with the number and the end of the last line read.

    `peek` returns further lines as bytes, to be read together, and `skip` passes over them. A file that arrives
    slowly may have a method `wait(seconds)`, which returns False if nothing can be read before they have passed.
    """

    def __init__(self, file: BinaryIO, name: str, *, number: int = 0, end: int = 0) -> None:
        self._file, self._read = file, getattr(file, "read1", file.read)
        self._wait: Callable[[float], bool] = getattr(file, "wait", lambda _: True)
        self.name = name
        self.number = number
        self.end = end
        #: Complete lines that were read, without their line feeds, and how many of them were returned.
        self._ready: list[bytes] = []
        self._returned = 0
        #: The beginning of the next line; None at the end of the file.
        self._rest: bytes | None = b""
        self._ends_in_feed = True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._returned == len(self._ready) and not self._fill():
            raise StopIteration
        line = self._ready[self._returned]
        self.skip(1, len(line))
        if len(line) > MAX_LINE_BYTES:
            self._refuse_long(self.number)
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8") + "\n"
        except UnicodeDecodeError as error:
            raise InvalidInput(self._not_utf8(line, error.start)) from None

    def peek(self, count: int, size: int, *, seconds: float = math.inf) -> list[bytes]:
        """Return the next lines, without their line feeds: at most `count`, and about `size` bytes.

        There are none at the end. Fewer are returned if the file, a pipe, took longer than this.
        """
        started = time.monotonic()
        ready = self._ready = self._ready[self._returned :]
        self._returned, total = 0, sum(map(len, ready))
        while len(ready) < count and total < size:
            remaining = started + seconds - time.monotonic()
            if ready and (remaining < 0 or not self._wait(remaining)):
                break
            former = len(ready)
            if not self._fill():
                break
            total += sum(map(len, ready[former:]))
        return ready[:count]

    def is_idle(self, seconds: float = IDLE_SECONDS) -> bool:
        """Return True if there is no further line yet, and nothing can be read before `seconds` have passed."""
        return self._returned == len(self._ready) and self._rest is not None and not self._wait(seconds)

    def skip(self, count: int, size: int) -> None:
        """Pass over the next lines, which hold `size` bytes without their line feeds."""
        self._returned += count
        self.number += count
        self.end += size + count
        if self._rest is None and self._returned == len(self._ready) and not self._ends_in_feed:
            self.end -= 1

    def seek(self, end: int) -> None:
        """Go on behind the first `end` bytes of the file, which can seek."""
        self._file.seek(0)
        number, remaining = 0, end
        while remaining and (chunk := self._read(min(remaining, _CHUNK_BYTES))):
            number, remaining = number + chunk.count(b"\n"), remaining - len(chunk)
        self.number, self.end = number, end
        self._ready, self._returned, self._rest = [], 0, b""

    def _fill(self) -> bool:
        """Read until there is a complete line more. Return False at the end of the file."""
        while self._rest is not None:
            chunk = self._read(_CHUNK_BYTES)
            if not chunk:
                line, self._rest = self._rest, None
                if line:
                    self._ends_in_feed = False
                    self._ready.append(line)
                return bool(line)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            if lines:
                self._ready = self._ready[self._returned :] if self._returned else self._ready
                self._returned = 0
                self._ready += lines
                return True
            if len(self._rest) > MAX_LINE_BYTES:
                self._refuse_long(self.number + len(self._ready) - self._returned + 1)
        return False

    def _refuse_long(self, number: int) -> NoReturn:
        raise InvalidInput(f"{self.name}, line {number} is longer than {MAX_LINE_BYTES // 1024**2} MB")

    def _not_utf8(self, line: bytes, start: int) -> str:
        utf16 = line.startswith((b"\xff\xfe", b"\xfe\xff"))
        if b"\0" in line and not utf16:
            return f"{self.name} is no text file: line {self.number}, byte {start + 1} is 0x{line[start]:02x}"
        guess = "UTF-16" if utf16 else "LATIN1"
        return (
            f"{self.name} is not UTF-8: line {self.number}, byte {start + 1} is 0x{line[start]:02x}; save it as "
            f"UTF-8, or convert it with `iconv -f {guess} -t UTF-8` if it is {guess}"
        )


def _read_csv(lines: Lines, contract: Contract, delimiter: str | None, column_names: Sequence[str]) -> Table:
    # A cell may hold a long text. The limit of the csv module is 128 KB, and holds for the whole process.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    first = next(lines, "")
    if not first.strip():
        raise InvalidInput(f"{lines.name} is empty: a CSV begins with a line of column names")
    delimiter = delimiter or _detect_delimiter(first)
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True)
    try:
        header = _next_cells(reader, lines) or []
        columns = match_columns(contract, header, column_names)
    except csv.Error as error:
        hint = "; its lines end in a carriage return alone: save it with line feeds" if "\r" in first[:-2] else ""
        raise InvalidInput(
            f"{lines.name}: the line of column names cannot be read as CSV: {error}{hint}"
        ) from None
    except InvalidInput as error:
        raise type(error)(f"{lines.name}: {error}") from None
    return Table(
        columns=tuple(header),
        delimiter=delimiter,
        rows=_read_csv_rows(reader, lines, header, columns, contract),
        lines=lines,
        sent=columns,
    )


def read_csv_lines(table: Table, contract: Contract, data: bytes, *, number: int, end: int) -> Iterator[Row]:
    """Read rows of a CSV again from their lines, without a header. `number` and `end` are of the line before."""
    assert table.columns is not None  # noqa: S101  # a CSV has columns
    assert table.sent is not None  # noqa: S101  # as above
    lines = Lines(io.BytesIO(data), "", number=number, end=end)
    reader = csv.reader(lines, delimiter=table.delimiter, strict=True)
    return _read_csv_rows(reader, lines, list(table.columns), table.sent, contract)


def _detect_delimiter(line: str) -> str:
    """Return the delimiter that splits the first line into the most cells; a comma where none splits it."""
    return max(_DELIMITERS, key=partial(_count_cells, line))


def _count_cells(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter)))
    except csv.Error:
        return 0  # the line is read again with the delimiter, and then refused


def _next_cells(reader: Iterator[list[str]], lines: Lines) -> list[str] | None:
    """Return the cells of the next row, None at the end.

    Raises csv.Error for a broken row, and InvalidInput for a broken file.
    """
    try:
        return next(reader, None)
    except csv.Error as error:
        if "limit" not in str(error) and "end of data" not in str(error):
            raise
        raise InvalidInput(
            f"{lines.name}: a quote is opened and not closed before line {lines.number}, or a cell is longer than "
            f"{MAX_LINE_BYTES // 1024**2} MB"
        ) from None


def _read_csv_rows(
    reader: Iterator[list[str]], lines: Lines, header: list[str], columns: Columns, contract: Contract
) -> Iterator[Row]:
    width = len(header)
    while True:
        line, start = lines.number + 1, lines.end
        try:
            cells = _next_cells(reader, lines)
        except csv.Error as error:
            message = f"the row cannot be read as CSV: {error}"
            yield Row(line=line, values={}, error=message, size=lines.end - start, end=lines.end)
            continue
        if cells is None:
            return
        if not cells:
            continue  # an empty line
        values = dict(zip(header, cells, strict=False))
        position: dict[str, Any] = {"line": line, "size": lines.end - start, "end": lines.end}
        if len(cells) != width:
            message = f"the row has {len(cells)} cells, and the file {width} columns"
            yield Row(values=values, error=message, **position)
        else:
            yield check_row(contract, Row(values=values, instance=columns.instance(cells), **position))


def check_row(contract: Contract, row: Row) -> Row:
    """Return the row with its instance as it will be sent, or with the error of the check."""
    try:
        (instance,) = check_instances(contract, [row.instance])
    except InvalidInput as error:
        return msgspec.structs.replace(row, instance=None, error=to_row_error(contract, str(error)))
    return row if instance is row.instance else msgspec.structs.replace(row, instance=instance)


def to_row_error(contract: Contract, message: str) -> str:
    """Return the error of a job of one instance as the error of its row: without model and instance number."""
    return message.removeprefix(f"{contract.model}@{contract.version}: ").replace("instance 0: ", "")


def _read_json_rows(lines: Lines, contract: Contract, key_names: Sequence[str]) -> Iterator[Row]:
    for text in lines:
        if not text.strip():
            continue
        position: dict[str, Any] = {"line": lines.number, "size": len(text), "end": lines.end}
        try:
            value = _decode_json(text)
        except (ValueError, RecursionError):
            yield Row(values={}, error="the line is not a JSON value", **position)
            continue
        values = value if isinstance(value, dict) else {"instance": value}
        try:
            instance = _to_instance(contract, value, key_names)
        except InvalidInput as error:
            yield Row(values=values, error=str(error), **position)
        else:
            yield check_row(contract, Row(values=values, instance=instance, **position))


def _decode_json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        # Python's json module writes NaN and Infinity, which are not JSON; encoding the value again makes them
        # null.
        return msgspec.json.decode(msgspec.json.encode(json.loads(text)))


def _to_instance(contract: Contract, value: Any, key_names: Sequence[str]) -> Any:
    """Return the instance in a line. Keys of an object that are no features of the contract are not sent."""
    if not isinstance(value, dict):
        return value
    if isinstance(contract.input, Named):
        features = contract.input.features
        absent = [feature for feature in features if feature.name not in value]
        # Where a name is missing, the whole object goes to the check, which suggests similar names.
        if not all(feature.optional for feature in absent):
            return value
        instance = {feature.name: value[feature.name] for feature in features if feature.name in value}
        names = [feature.name for feature in absent]
        is_misspelt = absent and any(nearest_name(key, names) for key in value.keys() - instance.keys())
        return value if is_misspelt else instance
    keys = list(key_names) or [key for key in ("instance", "text") if key in value][:1] or list(value)
    if len(keys) != 1 or keys[0] not in value:
        raise InvalidInput("which key of the object holds the instance? name it `instance`, or use --column KEY")
    return value[keys[0]]


@contextmanager
def open_source(path: str) -> Iterator[BinaryIO]:
    """Open the file to read; `-` is standard input, which stays open. Raises InvalidInput with the path."""
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb", buffering=1024 * 1024)  # noqa: SIM115  # closed by the `with` below
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    with file:
        yield file
