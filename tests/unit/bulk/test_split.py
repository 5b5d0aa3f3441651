"""A chunk whose process was lost is split down to single rows, each row in one piece."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.bulk import ChunkStep, Receipt, job_of_chunk, unit_of
from headrace_worker.bulk.plan_job import find_missing
from headrace_worker.bulk.split import row_range, split

STEP = ChunkStep(input="in:a.parquet", output="out:b/part-00017.parquet", run="nightly", chunk=17)


@given(low=st.integers(0, 10**6), rows=st.integers(2, 10**6))
def test_the_pieces_hold_each_row_once_in_order(low: int, rows: int) -> None:
    step = ChunkStep(input="in:a", output="out:b", run="r", chunk=17, rows=(low, low + rows))
    ranges = [row_range(piece) or (0, 0) for piece in split(step)]
    assert 2 <= len(ranges) <= 16
    assert (ranges[0][0], ranges[-1][1]) == (low, low + rows)
    assert all(first[1] == second[0] for first, second in pairwise(ranges))
    assert all(first < last for first, last in ranges)


@pytest.mark.parametrize("changes", [{}, {"count": 1}, {"rows": (5, 6)}, {"count": 0}])
def test_a_single_row_and_rows_that_nobody_counted_are_not_split(changes: dict[str, object]) -> None:
    assert split(ChunkStep(input="in:a", output="out:b", **changes)) == []  # type: ignore[arg-type]


def test_a_piece_has_an_id_of_its_own() -> None:
    first, second = split(ChunkStep(input="in:a", output="out:b", run="nightly", chunk=17, count=2))
    assert (unit_of(first), job_of_chunk(second)) == ("17-0-1", "nightly:17-1-2")


def test_a_planned_range_of_rows_is_no_split() -> None:
    assert unit_of(ChunkStep(input="in:a", output="out:b", run="nightly", chunk=17, rows=(3, 9))) == "17"


def test_the_missing_pieces_of_a_split_chunk_are_met_at_any_depth() -> None:
    step = ChunkStep(input="in:a", output="out:b", run="nightly", chunk=17, count=32)
    pieces = split(step)
    receipts = {"17": Receipt(rows=0, chunks=16), **{unit_of(piece): Receipt(rows=2) for piece in pieces}}
    assert list(find_missing([step], receipts)) == []
    receipts[unit_of(pieces[3])] = Receipt(rows=0, chunks=2)
    assert [unit_of(piece) for piece in find_missing([step], receipts)] == ["17-6-7", "17-7-8"]
    assert list(find_missing([step], {})) == [step]
