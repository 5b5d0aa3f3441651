"""Open a text file: CSV or JSON lines, plain or compressed, as blocks of bytes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, cast

import pyarrow as pa

from headrace.errors import InvalidInput
from headrace_worker.bulk import limits
from headrace_worker.bulk.locations import File
from headrace_worker.bulk.opening import open_unchanged
from headrace_worker.bulk.records import BLOCK_BYTES, scan_records
from headrace_worker.bulk.sources import FileForm
from headrace_worker.bulk.storage import storage_error

_BOM = b"\xef\xbb\xbf"
#: The old line end of Macintosh computers.
_RETURN = re.compile(rb"\r(?!\n)")
NO_NEWLINES = "records of the CSV do not end with a newline; save it with \\n or \\r\\n as line ends"
_DELIMITERS = (",", ";", "\t", "|")


class Header(NamedTuple):
    """The first record of a CSV."""

    #: Its bytes without the newline and the byte order mark.
    text: bytes
    names: list[str]
    delimiter: str


@contextmanager
def open_text(file: File, form: FileForm, content: str | None) -> Iterator[BinaryIO]:
    """Open a text file, and decompress it. `content` identifies it; None: unchecked.

    Raises InvalidInput if the content is another, or becomes another until the block ends.
    """
    with open_unchanged(file, content) as (opened, _):
        if form.compression is None:
            yield opened
            return
        # It is never closed, as it would close the file, which is looked at once more.
        stream = pa.CompressedInputStream(pa.PythonFile(opened, mode="r"), form.compression)
        yield cast("BinaryIO", _Decompressed(stream, opened, file.reference))


class _Decompressed:
    """A decompressed stream that refuses a file which expands beyond the limits."""

    def __init__(self, stream: BinaryIO, compressed: BinaryIO, title: str) -> None:
        self._stream, self._compressed, self._title = stream, compressed, title
        self._size = 0

    def read(self, size: int) -> bytes:
        """Read and count."""
        data = self._stream.read(size)
        self._size += len(data)
        if self._size > limits.SLICE_BYTES and self._size > limits.MAX_RATIO * self._compressed.tell():
            raise InvalidInput(
                f"{self._title} expands more than {limits.MAX_RATIO} times, which is more than is allowed"
            )
        return data


def read_blocks(opened: BinaryIO, file: File, *, first: int = 0, last: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of an open file from `first` to `last`, exclusive, in blocks of 4 MB.

    Raises InvalidInput for a damaged file.
    """
    try:
        if first:
            opened.seek(first)
        remaining = None if last is None else last - first
        while remaining is None or remaining > 0:
            size = BLOCK_BYTES if remaining is None else min(BLOCK_BYTES, remaining)
            block = _read_whole(opened, size)
            if not block:
                return
            if remaining is not None:
                remaining -= len(block)
            yield block
    except (OSError, pa.ArrowException, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise storage_error(file.reference, error) from None
        text = " ".join(str(error).split())[:200]
        raise InvalidInput(f"{file.reference} cannot be decompressed, it is damaged: {text}") from None


def skip_bom(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Leave out the byte order mark in front of a text."""
    first = next(blocks, b"")
    yield first.removeprefix(_BOM)
    yield from blocks


def parse_header(text: bytes, form: FileForm, title: str) -> Header:
    """Return the header of a CSV. Raises InvalidInput."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        guess = "UTF-16" if text.startswith((b"\xff\xfe", b"\xfe\xff")) else "LATIN1"
        raise InvalidInput(f"{title} is not UTF-8; convert it with `iconv -f {guess} -t UTF-8`") from None
    if _RETURN.search(text):
        raise InvalidInput(f"{title}: {NO_NEWLINES}")
    rows = {
        delimiter: split_cells(decoded, delimiter)
        for delimiter in ((form.delimiter,) if form.delimiter else _DELIMITERS)
    }
    delimiter = max(rows, key=lambda delimiter: len(rows[delimiter]))
    names = rows[delimiter]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise InvalidInput(f"{title} has two columns {duplicate!r}; rename one of them")
    return Header(text, names, delimiter)


def split_cells(record: str, delimiter: str) -> list[str]:
    """Return the cells of a record of a CSV."""
    csv.field_size_limit(max(csv.field_size_limit(), limits.MAX_RECORD_BYTES))
    return next(csv.reader(io.StringIO(record, newline=""), delimiter=delimiter), [])


def read_header(opened: BinaryIO, file: File, form: FileForm) -> Header:
    """Read the first record of a CSV. Raises InvalidInput if there is none."""
    # The delimiter does not matter where the record ends: its quotes stand beside some delimiter.
    for delimiter in (form.delimiter,) if form.delimiter else _DELIMITERS:
        opened.seek(0)
        blocks = skip_bom(iter(lambda: _read_whole(opened, 64 * 1024), b""))
        records = next(scan_records(blocks, file.reference, delimiter=delimiter), None)
        if records is None or len(records.starts) == 0:
            break
        header = parse_header(records.data[records.starts[0] : records.ends[0]], form, file.reference)
        if header.delimiter == delimiter:
            return header
    raise InvalidInput(f"{file.reference} is empty: a CSV begins with a line of column names")


def _read_whole(opened: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end of the file."""
    data = opened.read(size)
    if not data or len(data) == size:
        return bytes(data)
    pieces = [data]
    missing = size - len(data)
    while missing > 0 and (data := opened.read(missing)):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)
