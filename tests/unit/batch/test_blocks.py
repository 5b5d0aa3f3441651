"""Tests of grouping rows into blocks, and of pairing them with the outcome of their job."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.batch.blocks import BLOCK_BYTES, MAX_BLOCK_BYTES, RowBlock, must_split, split_into_blocks
from headrace.batch.reader import Row
from headrace.catalog.contract import Contract, Output, Text
from headrace.wire.outcome import Cancelled, Expired, Failure, Prediction, Success

CONTRACT = Contract(model="spam", version="1", input=Text(), methods={"predict": Output(shape=())})


def make_row(number: int, *, size: int = 10, error: str | None = None) -> Row:
    return Row(line=number, values={}, instance=f"text {number}", size=size, error=error)


def failure(reason) -> Failure:
    return Failure(
        job="j", reason=reason, error="ValueError", module="builtins", message="spam@1: instance 0: no good"
    )


def success(*predictions) -> Success:
    return Success(job="j", prediction=Prediction(model="spam", version="1", predictions=list(predictions)))


def pair(rows, outcome):
    return RowBlock(CONTRACT, rows).pair(outcome)


@given(st.lists(st.integers(0, MAX_BLOCK_BYTES)), st.integers(1, 5))
def test_blocks_hold_every_row_once_in_order_within_their_limits(sizes, rows_per_job):
    rows = [make_row(number, size=size) for number, size in enumerate(sizes)]
    for named_rows, most_rows, most_bytes in (
        (rows_per_job, rows_per_job, MAX_BLOCK_BYTES),
        (None, 100, BLOCK_BYTES),
    ):
        blocks = list(split_into_blocks(CONTRACT, rows, named_rows))
        assert [row for block in blocks for row in block.rows] == rows
        assert all(1 <= len(block.rows) <= most_rows for block in blocks)
        assert all(len(block.rows) == 1 or block.size <= most_bytes for block in blocks)


def test_a_named_number_of_rows_is_honoured_up_to_the_limit_in_bytes():
    rows = [make_row(number, size=500) for number in range(40_000)]
    assert [len(block.rows) for block in split_into_blocks(CONTRACT, rows, 10_000)] == [10_000] * 4
    assert [len(block.rows) for block in split_into_blocks(CONTRACT, rows, 100_000)] == [16_777, 16_777, 6_446]


def test_a_block_that_is_too_large_for_a_job_is_halved():
    rows = [make_row(number) for number in range(5)]
    assert [block.rows for block in RowBlock(CONTRACT, rows).halves()] == [rows[:2], rows[2:]]
    assert [block.rows for block in RowBlock(CONTRACT, rows).split()] == [[row] for row in rows]


def test_a_failed_job_is_split_unless_it_has_a_single_row():
    assert must_split(failure("bad input"), 2)
    assert must_split(failure("crash"), 100)
    assert not must_split(failure("bad input"), 1)
    assert not must_split(failure("unknown model"), 100)
    assert not must_split(success(1, 2), 2)
    assert not must_split(Cancelled(job="j"), 2)


def test_predictions_go_to_the_rows_that_were_sent():
    predicted = pair([make_row(1), make_row(2, error="ragged"), make_row(3)], success("a", "b"))
    assert [(row.prediction, row.error) for row in predicted] == [("a", None), (None, "ragged"), ("b", None)]


def test_the_error_of_a_row_has_no_instance_number():
    (predicted,) = pair([make_row(1)], failure("permanent"))
    assert predicted.error == "permanent: ValueError: no good"


def test_cancelled_and_expired_jobs_are_errors_of_their_rows():
    assert pair([make_row(1)], Cancelled(job="j"))[0].error == "the job was cancelled"
    assert "expired" in pair([make_row(1)], Expired(job="j"))[0].error


def test_a_wrong_number_of_predictions_is_an_error_of_every_row():
    predicted = pair([make_row(1), make_row(2)], success("a"))
    assert [row.error for row in predicted] == ["the job returned 1 predictions for 2 instances"] * 2
