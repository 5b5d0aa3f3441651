"""Cut the files of a table into chunks.

A Parquet file is cut between row groups, of which the footer alone is read. A row group of many rows is cut by
rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from headrace_worker.bulk.locations import File, Locations
from headrace_worker.bulk.parquet_file import open_parquet
from headrace_worker.bulk.records import scan_records
from headrace_worker.bulk.sources import FileForm, Source, read_form
from headrace_worker.bulk.text_file import open_text, read_blocks, read_header

#: Chunks of one row group. Each reads, but does not predict, the rows in front of its own.
_MAX_CUTS = 8


class Piece(NamedTuple):
    """A piece of a file, for a chunk: the fields of a ChunkStep, and its number of rows."""

    #: Row groups `first` to `last`, exclusive; for text, bytes. None for `last`: to the end.
    first: int
    last: int | None
    #: The number of the first row in the file, from 0; for text, the line of the first record, from 1.
    first_row: int
    #: The rows of the piece that the chunk predicts, from `rows[0]` to `rows[1]`, exclusive. None: all.
    rows: tuple[int, int] | None = None
    #: The number of rows that the chunk predicts. None: unknown, in a compressed file.
    row_count: int | None = None


def cut(
    locations: Locations, source: Source, *, target_rows: int, target_bytes: int = 256 * 1024**2
) -> Iterator[Piece]:
    """Cut a file into pieces of about `target_rows` rows, and not many more than `target_bytes` bytes.

    Raises InvalidInput if the file is not as it was listed, is damaged, or exceeds a limit.
    """
    form = read_form(source.reference)
    file = locations.resolve(source.reference)
    if form.format != "parquet":
        yield from _cut_text(file, form, source.content, target_rows, target_bytes)
        return
    with open_parquet(file, source.content) as parquet:
        groups = [parquet.metadata.row_group(index) for index in range(parquet.metadata.num_row_groups)]
        yield from cut_groups(
            [(group.num_rows, group.total_byte_size) for group in groups], target_rows, target_bytes
        )


def cut_groups(groups: list[tuple[int, int]], target_rows: int, target_bytes: int) -> Iterator[Piece]:
    """Cut row groups, of which the rows and bytes are known, into pieces. Row groups without rows are left out."""
    first = rows = size = start = 0
    for index, (group_rows, group_bytes) in enumerate(groups):
        cuts = _count_cuts(group_rows, group_bytes, target_rows, target_bytes)
        if rows and (cuts > 1 or rows + group_rows > target_rows or size + group_bytes > target_bytes):
            yield Piece(first, index, start, row_count=rows)
            start, rows, size = start + rows, 0, 0
        if not rows:
            first = index
        if cuts > 1:
            bounds = [group_rows * number // cuts for number in range(cuts + 1)]
            for low, high in itertools.pairwise(bounds):
                yield Piece(index, index + 1, start, rows=(low, high), row_count=high - low)
            start += group_rows
        else:
            rows, size = rows + group_rows, size + group_bytes
    if rows:
        yield Piece(first, len(groups), start, row_count=rows)


def _count_cuts(rows: int, size: int, target_rows: int, target_bytes: int) -> int:
    if rows < 2 * target_rows and size < 2 * target_bytes:
        return 1
    return max(1, min(_MAX_CUTS, rows, max(rows // target_rows, size // target_bytes)))


def _cut_text(
    file: File, form: FileForm, content: str | None, target_rows: int, target_bytes: int
) -> Iterator[Piece]:
    """Cut text behind the records that fill a chunk. A compressed file is one piece: it is read from its start."""
    if form.compression is not None:
        yield Piece(0, None, 1)
        return
    with open_text(file, form, content) as opened:
        delimiter, count = None, 0
        if form.format == "csv":
            delimiter, count = read_header(opened, file, form).delimiter, -1  # the header is no row
            opened.seek(0)
        first, line, position = 0, 1, 0
        for records in scan_records(read_blocks(opened, file), file.reference, delimiter=delimiter):
            start = 0
            while start < len(records.starts):
                if count > 0 and (count >= target_rows or position - first >= target_bytes):
                    bound = records.offset + int(records.starts[start])
                    yield Piece(first, bound, line, row_count=count)
                    first, line, count = bound, int(records.lines[start]), 0
                full = int(np.searchsorted(records.ends, first + target_bytes - records.offset))
                end = min(len(records.starts), start + max(1, target_rows - count), max(start, full) + 1)
                count, start = count + end - start, end
                position = records.offset + int(records.ends[end - 1])
        if count > 0:
            yield Piece(first, None, line, row_count=count)
