"""Read the rows of a chunk, a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.errors import InvalidInput
from headrace.wire.bulk import ChunkStep
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.read_parquet import read_parquet
from headrace_worker.bulk.read_text import read_text
from headrace_worker.bulk.slices import Slice
from headrace_worker.bulk.sources import read_form


def read_piece(locations: Locations, step: ChunkStep, schema: Any) -> Iterator[Slice]:
    """Read the rows of a chunk in slices of at most 10,000 rows.

    `schema` is the contract as a pyarrow Schema: the columns to read, and the types of text. Raises InvalidInput
    if the file is not the one that was planned, cannot be read, or lacks a column; TransientError if the storage
    fails.
    """
    form = read_form(step.input)
    file = locations.resolve(step.input)
    if step.rows is not None and not 0 <= step.rows[0] <= step.rows[1]:
        raise InvalidInput(f"{step.input}: the rows {step.rows} of a chunk are no range")
    if step.first < 0 or (step.last is not None and step.last < step.first):
        raise InvalidInput(f"{step.input}: the piece from {step.first} to {step.last} of a chunk is no range")
    if form.format == "parquet":
        yield from read_parquet(file, step, schema)
        return
    yield from read_text(file, form, step, schema)
