"""The rows under way, in the order they will be written: a bounded number of blocks, the oldest first.

A block is the rows of one job. The window knows nothing of clients and clocks; `headrace.batch.job_window`
sends and waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from headrace.batch.reader import Row, row_error
from headrace.catalog.contract import Contract
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Success

#: Bytes of the file in one job at the most: long rows make jobs of few rows, and memory stays bounded.
BLOCK_BYTES = 256 * 1024


class PredictedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row and its prediction, or the error it has instead."""

    row: Row
    prediction: Any = None
    error: str | None = None


def split_into_blocks(rows: Iterable[Row], rows_per_job: int) -> Iterator[list[Row]]:
    """The rows in blocks, in order: up to `rows_per_job` and BLOCK_BYTES in each, at least one row."""
    block: list[Row] = []
    size = 0
    for row in rows:
        if block and size + row.size > BLOCK_BYTES:
            yield block
            block, size = [], 0
        block.append(row)
        size += row.size
        if len(block) >= rows_per_job:  # at once: the next row may be long in coming
            yield block
            block, size = [], 0
    if block:
        yield block


def must_split(outcome: Outcome, rows: int) -> bool:
    """Whether the rows of a job are to be sent again one by one, so that only the guilty ones fail."""
    return rows > 1 and isinstance(outcome, Failure) and outcome.reason not in {"unknown model", "malformed"}


def pair_with_outcome(contract: Contract, block: list[Row], outcome: Outcome | None) -> list[PredictedRow]:
    """The rows of a block with what their job ended in; None where no row of the block was fit to be sent."""
    sent = sum(row.error is None for row in block)
    problem = None if outcome is None else _problem(contract, outcome, sent)
    answers = iter(outcome.prediction.predictions if isinstance(outcome, Success) else ())
    done = []
    for row in block:
        error = row.error or problem
        done.append(
            PredictedRow(row=row, error=error) if error else PredictedRow(row=row, prediction=next(answers))
        )
    return done


def _problem(contract: Contract, outcome: Outcome, sent: int) -> str | None:
    match outcome:
        case Success(prediction=prediction) if len(prediction.predictions) == sent:
            return None
        case Success(prediction=prediction):
            return f"the job was answered with {len(prediction.predictions)} predictions for {sent} instances"
        case Failure():
            return f"{outcome.reason}: {outcome.error}: {row_error(contract, outcome.message)}"
        case Expired():
            return "the job expired: it was not started before its deadline"
        case Cancelled():
            return "the job was cancelled"
