"""A chunk takes about a second, or less where the time limit of its model is short."""

from __future__ import annotations

import pytest

from headrace_worker.bulk.chunk_rows import choose_chunk_rows
from headrace_worker.manifest import Limits


@pytest.mark.parametrize(
    ("row_ms", "limits", "rows"),
    [
        (0.01, Limits(), 100_000),
        (1.0, Limits(), 1_000),
        (1000.0, Limits(), 100),
        (0.0, Limits(), 1_000_000),
        (0.01, Limits(time_limit=2.0), 50_000),
        (0.01, Limits(time_limit=100.0, soft_time_limit=0.4), 10_000),
    ],
)
def test_the_rows_of_a_chunk_follow_from_the_time_of_a_row(row_ms: float, limits: Limits, rows: int) -> None:
    assert choose_chunk_rows(row_ms, limits) == rows
