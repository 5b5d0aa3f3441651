"""Blocks of rows, one for each job: grouping rows into blocks, and pairing a block with the outcome of its job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from headrace.batch.forms import ROWS_PER_JOB, Form, to_columns
from headrace.batch.reader import Row, to_row_error
from headrace.catalog.contract import Contract
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Success

if TYPE_CHECKING:
    from headrace.batch.csv_blocks import LineBlock

#: Bytes of the file in a job whose rows are sent one after the other, if the caller names no number of rows.
BLOCK_BYTES = 256 * 1024
#: The most bytes of the file in any job: they are in memory together.
MAX_BLOCK_BYTES = 8 * 1024 * 1024


class PredictedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row with its prediction or its error."""

    row: Row
    prediction: Any = None
    error: str | None = None


class PredictedLines(msgspec.Struct, frozen=True):
    """Lines of a file with their predictions, and the errors of some of them, by index."""

    block: LineBlock
    predictions: Sequence[Any]
    errors: dict[int, str]

    def rows(self) -> Iterator[PredictedRow]:
        """Yield the rows of the lines with their predictions or errors."""
        for index, row in enumerate(self.block.rows()):
            error = self.errors.get(index)
            yield PredictedRow(row=row, prediction=None if error else self.predictions[index], error=error)


#: A row, or several, with predictions or errors.
Predicted = PredictedRow | PredictedLines


class Block(Protocol):
    """Rows that are sent as one job."""

    @property
    def valid_rows(self) -> int:
        """The number of rows to send: those without an error."""

    @property
    def size(self) -> int:
        """The bytes of the file that all rows take."""

    @property
    def instances(self) -> Sequence[Any]:
        """The instances of the rows to send."""

    def halves(self) -> Sequence[Block]:
        """Split the block in two: it is too large for one job. It has at least two rows."""

    def split(self) -> Sequence[Block]:
        """Split the block, whose job failed, into smaller ones, so that only bad rows fail."""

    def with_error(self, error: str) -> Block:
        """Return the block with an error of each row that has none."""

    def pair(self, outcome: Outcome | None) -> Sequence[Predicted]:
        """Return the rows with their predictions or errors.

        `outcome` is the outcome of the block's job; None where every row has an error and no job was submitted.
        """


class RowBlock(msgspec.Struct, frozen=True):
    """A block of rows, in memory one after the other. `form` is the form in which their instances are sent."""

    contract: Contract
    rows: list[Row]
    form: Form = "rows"

    @property
    def valid_rows(self) -> int:
        """The number of rows to send: those without an error."""
        return sum(row.error is None for row in self.rows)

    @property
    def size(self) -> int:
        """The bytes of the file that all rows take."""
        return sum(row.size for row in self.rows)

    @property
    def instances(self) -> Sequence[Any]:
        """The instances of the rows to send."""
        instances = [row.instance for row in self.rows if row.error is None]
        return to_columns(self.contract, instances, self.form)

    def halves(self) -> list[Block]:
        """Split the block in two: it is too large for one job."""
        middle = len(self.rows) // 2
        return [
            RowBlock(self.contract, self.rows[:middle], self.form),
            RowBlock(self.contract, self.rows[middle:], self.form),
        ]

    def split(self) -> list[Block]:
        """Split the block into its rows; a large one into blocks of rows that are sent one after the other."""
        return split_by_rows(self.contract, self.rows)

    def with_error(self, error: str) -> Block:
        """Return the block with an error of each row that has none."""
        return RowBlock(
            self.contract,
            [msgspec.structs.replace(row, instance=None, error=row.error or error) for row in self.rows],
        )

    def pair(self, outcome: Outcome | None) -> list[Predicted]:
        """Return the rows with their predictions or errors."""
        job_error = None if outcome is None else describe_error(self.contract, outcome, self.valid_rows)
        prediction = outcome.prediction if isinstance(outcome, Success) else None
        predictions = iter(enumerate(prediction.predictions if prediction else ()))
        errors = (prediction.errors if prediction else None) or {}
        predicted: list[Predicted] = []
        for row in self.rows:
            if error := row.error or job_error:
                predicted.append(PredictedRow(row=row, error=error))
                continue
            index, value = next(predictions)
            if index in errors:
                predicted.append(PredictedRow(row=row, error=to_row_error(self.contract, errors[index])))
            else:
                predicted.append(PredictedRow(row=row, prediction=value))
        return predicted


def split_by_rows(contract: Contract, rows: list[Row]) -> list[Block]:
    """Return smaller blocks of rows, sent one after the other: of ROWS_PER_JOB, or of one if there are no more."""
    size = ROWS_PER_JOB["rows"] if len(rows) > ROWS_PER_JOB["rows"] else 1
    return [RowBlock(contract, rows[start : start + size]) for start in range(0, len(rows), size)]


def split_into_blocks(
    contract: Contract,
    rows: Iterable[Row],
    rows_per_job: int | None = None,
    form: Form = "rows",
    *,
    is_idle: Callable[[], bool] = lambda: False,
) -> Iterator[RowBlock | None]:
    """Yield the rows in blocks, in order, of at least one row, to be sent in a form.

    A block holds at most `rows_per_job` rows and MAX_BLOCK_BYTES. None is ROWS_PER_JOB of the form, and
    BLOCK_BYTES for rows that are sent one after the other. While `is_idle` returns True, as no row has arrived for
    a while, a block is not completed, and None is yielded where there is no row at all.
    """
    most_rows = rows_per_job or ROWS_PER_JOB[form]
    most_bytes = BLOCK_BYTES if form == "rows" and rows_per_job is None else MAX_BLOCK_BYTES
    block: list[Row] = []
    size = 0
    for row in rows:
        if block and size + row.size > most_bytes:
            yield RowBlock(contract, block, form)
            block, size = [], 0
        block.append(row)
        size += row.size
        if len(block) >= most_rows:  # without waiting for the next row, which may take long to arrive
            yield RowBlock(contract, block, form)
            block, size = [], 0
        while is_idle():
            yield RowBlock(contract, block, form) if block else None
            block, size = [], 0
    if block:
        yield RowBlock(contract, block, form)


def must_split(outcome: Outcome, rows: int) -> bool:
    """Return whether the rows of a failed job are submitted again in smaller jobs, so that only bad rows fail."""
    return rows > 1 and isinstance(outcome, Failure) and outcome.reason not in {"unknown model", "malformed"}


def describe_error(contract: Contract, outcome: Outcome, submitted: int) -> str | None:
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
