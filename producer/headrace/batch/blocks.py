"""Blocks of rows, one for each job: grouping rows into blocks, and pairing a block with the outcome of its job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from headrace.batch.reader import Row, to_row_error
from headrace.catalog.contract import Contract
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Success

#: Bytes of the file in one job at most. Long rows make jobs of few rows, so that memory stays bounded.
BLOCK_BYTES = 256 * 1024


class PredictedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row with its prediction or its error."""

    row: Row
    prediction: Any = None
    error: str | None = None


def split_into_blocks(rows: Iterable[Row], rows_per_job: int) -> Iterator[list[Row]]:
    """Yield the rows in blocks, in order: at least one row, at most `rows_per_job` rows and BLOCK_BYTES each."""
    block: list[Row] = []
    size = 0
    for row in rows:
        if block and size + row.size > BLOCK_BYTES:
            yield block
            block, size = [], 0
        block.append(row)
        size += row.size
        if len(block) >= rows_per_job:  # without waiting for the next row, which may take long to arrive
            yield block
            block, size = [], 0
    if block:
        yield block


def must_split(outcome: Outcome, rows: int) -> bool:
    """Return whether the rows of a failed job are submitted again one by one, so that only bad rows fail."""
    return rows > 1 and isinstance(outcome, Failure) and outcome.reason not in {"unknown model", "malformed"}


def pair_with_outcome(contract: Contract, block: list[Row], outcome: Outcome | None) -> list[PredictedRow]:
    """Return the rows of a block with their predictions or errors.

    `outcome` is the outcome of the block's job; None where every row has an error and no job was submitted.
    """
    submitted = sum(row.error is None for row in block)
    job_error = None if outcome is None else _describe_error(contract, outcome, submitted)
    predictions = iter(outcome.prediction.predictions if isinstance(outcome, Success) else ())
    predicted = []
    for row in block:
        if error := row.error or job_error:
            predicted.append(PredictedRow(row=row, error=error))
        else:
            predicted.append(PredictedRow(row=row, prediction=next(predictions)))
    return predicted


def _describe_error(contract: Contract, outcome: Outcome, submitted: int) -> str | None:
    """Return the error of a job for each of its rows; None for a success with a prediction for each instance."""
    match outcome:
        case Success(prediction=prediction) if len(prediction.predictions) == submitted:
            return None
        case Success(prediction=prediction):
            return f"the job returned {len(prediction.predictions)} predictions for {submitted} instances"
        case Failure():
            return f"{outcome.reason}: {outcome.error}: {to_row_error(contract, outcome.message)}"
        case Expired():
            return "the job expired: it was not started before its deadline"
        case Cancelled():
            return "the job was cancelled"
