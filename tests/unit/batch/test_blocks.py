"""Rows travel in blocks and come back in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.batch.blocks import BLOCK_BYTES, must_split, pair_with_outcome, split_into_blocks
from headrace.batch.reader import Row
from headrace.catalog.contract import Contract, Output, Text
from headrace.wire.outcome import Cancelled, Expired, Failure, Prediction, Success

CONTRACT = Contract(model="spam", version="1", input=Text(), methods={"predict": Output(shape=())})


def row(number: int, *, size: int = 10, error: str | None = None) -> Row:
    return Row(line=number, values={}, instance=f"text {number}", size=size, error=error)


def failure(reason) -> Failure:
    return Failure(
        job="j", reason=reason, error="ValueError", module="builtins", message="spam@1: instance 0: no good"
    )


def success(*predictions) -> Success:
    return Success(job="j", prediction=Prediction(model="spam", version="1", predictions=list(predictions)))


@given(st.lists(st.integers(0, BLOCK_BYTES)), st.integers(1, 5))
def test_blocks_hold_every_row_once_in_order_within_their_limits(sizes, rows_per_job):
    rows = [row(number, size=size) for number, size in enumerate(sizes)]
    cut = list(split_into_blocks(rows, rows_per_job))
    assert [one for block in cut for one in block] == rows
    assert all(1 <= len(block) <= rows_per_job for block in cut)
    assert all(len(block) == 1 or sum(one.size for one in block) <= BLOCK_BYTES for block in cut)


def test_a_job_of_several_rows_that_failed_is_split_and_one_of_a_single_row_is_not():
    assert must_split(failure("bad input"), 2)
    assert must_split(failure("crash"), 100)
    assert not must_split(failure("bad input"), 1)
    assert not must_split(failure("unknown model"), 100)
    assert not must_split(success(1, 2), 2)
    assert not must_split(Cancelled(job="j"), 2)


def test_predictions_go_to_the_rows_that_were_sent():
    done = pair_with_outcome(CONTRACT, [row(1), row(2, error="ragged"), row(3)], success("a", "b"))
    assert [(one.prediction, one.error) for one in done] == [("a", None), (None, "ragged"), ("b", None)]


def test_a_failure_is_told_of_the_row_without_the_instances_number():
    (done,) = pair_with_outcome(CONTRACT, [row(1)], failure("permanent"))
    assert done.error == "permanent: ValueError: no good"


def test_other_ends_are_told_too():
    assert pair_with_outcome(CONTRACT, [row(1)], Cancelled(job="j"))[0].error == "the job was cancelled"
    assert "expired" in pair_with_outcome(CONTRACT, [row(1)], Expired(job="j"))[0].error


def test_an_answer_of_another_length_is_nobodys_prediction():
    done = pair_with_outcome(CONTRACT, [row(1), row(2)], success("a"))
    assert [one.error for one in done] == ["the job was answered with 1 predictions for 2 instances"] * 2
