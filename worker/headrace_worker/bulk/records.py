"""Find the records of text: lines of JSON, or records of CSV, which may hold newlines in quotes.

A quick scan with numpy: quotes alternate between opening and closing where every one stands beside a delimiter, a
newline or another quote. Where one does not, the quotes of the block are followed one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.errors import InvalidInput
from headrace_worker.bulk import limits

#: Bytes that are scanned at a time.
BLOCK_BYTES = 4 * 1024**2
_NEWLINE, _RETURN, _QUOTE = 10, 13, 34

Positions = npt.NDArray[np.int64]


class Records(NamedTuple):
    """Whole records that follow each other. Empty lines are left out."""

    data: bytes
    #: The position in the file, or in the decompressed text, of the first byte of `data`.
    offset: int
    #: Where each record begins and ends in `data`; its newline follows the end.
    starts: Positions
    ends: Positions
    #: The line of the file that each record begins with, from 1.
    lines: Positions


def scan_records(
    blocks: Iterator[bytes], title: str, *, delimiter: str | None, offset: int = 0, line: int = 1
) -> Iterator[Records]:
    """Yield the records of text, some thousand at a time.

    `delimiter` is that of a CSV; None: every line is a record. `offset` and `line` are those of the first byte.
    Raises InvalidInput for a record that is too long, or whose last quote is not closed.
    """
    rest = b""
    for block in blocks:
        data = rest + block if rest else block
        boundaries, newlines = _find_boundaries(data, delimiter)
        if len(boundaries) == 0:
            rest = data
            if len(rest) > limits.MAX_RECORD_BYTES:
                raise _is_endless(title, line, delimiter)
            continue
        end = int(boundaries[-1]) + 1
        yield _split(data[:end], offset, boundaries, newlines, line)
        line += int(np.searchsorted(newlines, end))
        offset, rest = offset + end, data[end:]
    if rest:
        boundaries, newlines = _find_boundaries(rest + b"\n", delimiter)
        if len(boundaries) == 0 or boundaries[-1] != len(rest):
            raise _is_endless(title, line, delimiter)
        yield _split(rest, offset, boundaries, newlines, line)


def _split(data: bytes, offset: int, boundaries: Positions, newlines: Positions, line: int) -> Records:
    starts = np.concatenate([np.zeros(1, np.int64), boundaries[:-1] + 1])
    ends = boundaries.copy()
    view = np.frombuffer(data, np.uint8)
    has_return = (ends > starts) & (view[np.maximum(ends - 1, 0)] == _RETURN)
    ends -= has_return
    is_filled = ends > starts
    lines = line + np.searchsorted(newlines, starts)
    return Records(data, offset, starts[is_filled], ends[is_filled], lines[is_filled])


def _find_boundaries(data: bytes, delimiter: str | None) -> tuple[Positions, Positions]:
    """Return the newlines that end records, and all newlines."""
    view = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(view == _NEWLINE)
    if delimiter is None or b'"' not in data:
        return newlines, newlines
    quotes = np.flatnonzero(view == _QUOTE)
    if not _is_regular(view, quotes, ord(delimiter)):
        quotes = _find_field_quotes(data, quotes.tolist(), delimiter)
    return newlines[np.searchsorted(quotes, newlines) % 2 == 0], newlines


def _is_regular(view: npt.NDArray[np.uint8], quotes: Positions, delimiter: int) -> bool:
    """Decide whether quotes open and close in turn: each stands beside an end of a field or another quote."""
    borders = np.zeros(256, dtype=bool)
    borders[[delimiter, _NEWLINE, _RETURN, _QUOTE]] = True
    opening, closing = quotes[::2], quotes[1::2]
    before = opening[opening > 0] - 1
    after = closing[closing < len(view) - 1] + 1
    return bool(borders[view[before]].all() and borders[view[after]].all())


def _find_field_quotes(data: bytes, quotes: list[int], delimiter: str) -> Positions:
    """Return the quotes that open and close fields, in turn. A quote within an unquoted field is a character."""
    borders = {ord(delimiter), _NEWLINE, _RETURN}
    pairs: list[int] = []
    index = 0
    while index < len(quotes):
        position = quotes[index]
        index += 1
        if position > 0 and data[position - 1] not in borders:
            continue
        pairs.append(position)
        while index + 1 < len(quotes) and quotes[index + 1] == quotes[index] + 1:
            index += 2  # a quote in the field is written twice
        if index < len(quotes):
            pairs.append(quotes[index])
            index += 1
    return np.array(pairs, dtype=np.int64)


def _is_endless(title: str, line: int, delimiter: str | None) -> InvalidInput:
    limit = limits.MAX_RECORD_BYTES // 1024**2
    if delimiter is None:
        return InvalidInput(f"{title}, line {line} is longer than {limit} MB")
    return InvalidInput(
        f"{title}: the record that begins in line {line} has no end within {limit} MB or the file; a quote is not "
        "closed there"
    )


def is_utf8(data: bytes) -> bool:
    """Decide whether bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def to_texts(records: Records, first: int, last: int) -> list[bytes]:
    """Return the bytes of the records from `first` to `last`, exclusive."""
    data = records.data
    bounds: Any = zip(records.starts[first:last].tolist(), records.ends[first:last].tolist(), strict=True)
    return [data[start:end] for start, end in bounds]
