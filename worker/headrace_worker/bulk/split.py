"""Split a chunk whose process was lost, to find the rows that end it. The decisions are pure.

A piece of a chunk only tries its rows: it writes nothing. Once the guilty rows are known, the finish of the run
writes the part of the chunk as if it had never been split (`finish_job`).
"""

from __future__ import annotations

import msgspec

from headrace.wire.bulk import ChunkStep

#: The most pieces of a split: 50,000 rows are single rows after four.
_PIECES = 16
#: The most splits of one chunk. A chunk that needs more is not ended by a few rows of it, but by its file.
MAX_SPLITS = 64


def row_range(step: ChunkStep) -> tuple[int, int] | None:
    """Return the rows that a chunk predicts, as numbers in its piece; None if nobody has counted them."""
    if step.rows is not None:
        return step.rows
    return None if step.count is None else (0, step.count)


def split(step: ChunkStep) -> list[ChunkStep]:
    """Return the steps of the pieces of a chunk; none for a single row, and for rows that nobody has counted."""
    rows = row_range(step)
    if rows is None or rows[1] - rows[0] < 2:
        return []
    size = -(-(rows[1] - rows[0]) // _PIECES)
    return [
        msgspec.structs.replace(step, rows=(low, high), count=high - low, is_split=True)
        for low in range(rows[0], rows[1], size)
        for high in [min(low + size, rows[1])]
    ]
