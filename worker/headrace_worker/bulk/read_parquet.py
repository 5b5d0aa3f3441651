"""Read the rows of a chunk from row groups of a Parquet file.

Row groups are decoded page by page: of one row group, a slice and the compressed bytes are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from headrace.errors import InvalidInput
from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.columns import add_partitions, select_columns
from headrace_worker.bulk.locations import File
from headrace_worker.bulk.parquet_file import damaged, open_parquet, slice_rows
from headrace_worker.bulk.slices import Slice


def read_parquet(file: File, step: ChunkStep, schema: Any) -> Iterator[Slice]:
    """Read the rows of a chunk. Columns have the types that they have in the file."""
    with open_parquet(file, step.content) as reader:
        metadata = reader.metadata
        last = metadata.num_row_groups if step.last is None else step.last
        if last > metadata.num_row_groups:
            raise InvalidInput(f"{file.reference} has {metadata.num_row_groups} row groups, not {last}")
        columns = select_columns(file.reference, reader.schema_arrow.names, schema, step)
        low, high = step.rows or (0, None)
        groups, first = _needed_groups(metadata, range(step.first, last), low, high)
        batches = reader.iter_batches(
            batch_size=slice_rows(metadata), row_groups=groups, columns=columns, use_threads=False
        )
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise damaged(file, error) from None
            if batch is None:
                return
            start, first = first, first + batch.num_rows
            if start < low or (high is not None and first > high):
                skipped = max(0, low - start)
                length = (first if high is None else min(first, high)) - start - skipped
                batch, start = batch.slice(skipped, max(0, length)), start + skipped
            if batch.num_rows:
                number = step.first_row + start + 1
                yield Slice(
                    rows=add_partitions(batch, file.reference, schema, step),
                    first=start,
                    numbers=range(number, number + batch.num_rows),
                )


def _needed_groups(metadata: Any, groups: range, low: int, high: int | None) -> tuple[list[int], int]:
    """Return the row groups with the rows from `low` to `high` of a piece, and their first row in it."""
    needed: list[int] = []
    first = start = 0
    for index in groups:
        end = start + metadata.row_group(index).num_rows
        if end <= low:
            first = end
        elif high is None or start < high:
            needed.append(index)
        start = end
    return needed, first
