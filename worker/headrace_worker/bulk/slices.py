"""A slice: some thousand rows of a chunk, the table that is in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from headrace_worker.bulk.text_file import Header


class Slice(NamedTuple):
    """Consecutive rows of a chunk."""

    #: A pyarrow RecordBatch: the columns of the model, and for Parquet the columns that the output keeps. For
    #: text, the columns have the types of the contract, and a row in `refused` has nulls.
    rows: Any
    #: The number of the first row in the piece, from 0.
    first: int
    #: The number of each row in the file, from 1; for text, the line that its record begins with.
    numbers: Sequence[int]
    #: Rows that could not be read, by their index in the slice, and why.
    refused: Mapping[int, str] = {}
    #: The records of text, without the newlines; None for Parquet.
    records: Sequence[bytes] | None = None
    #: The header of a CSV; None for other formats.
    header: Header | None = None
