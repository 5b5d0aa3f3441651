"""Blocks of lines of a CSV: their instances are sent in Arrow columns, and their text is written as it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.batch.blocks import (
    MAX_BLOCK_BYTES,
    Block,
    Predicted,
    PredictedLines,
    PredictedRow,
    RowBlock,
    describe_error,
    split_by_rows,
)
from headrace.batch.reader import Row, Table, read_csv_lines, to_row_error
from headrace.catalog.contract import Contract, Named
from headrace.wire.arrow import ArrowColumns
from headrace.wire.outcome import Outcome, Success

if TYPE_CHECKING:
    from headrace.batch.csv_columns import CsvConverter

#: Seconds for which the first row of a block may wait for others: standard input may be slow.
_PATIENCE_SECONDS = 1.0
_BLANK = {b"", b"\r"}


class LineBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A block of lines that all hold valid instances."""

    contract: Contract
    table: Table
    #: The lines without line feeds; blank ones hold no instance. And the number of the line before the first, and
    #: the bytes of the file up to its end.
    lines: list[bytes]
    number: int
    start: int
    #: The instances: a RecordBatch.
    batch: Any

    @property
    def valid_rows(self) -> int:
        """The number of rows to send: all."""
        return int(self.batch.num_rows)

    @property
    def size(self) -> int:
        """The bytes of the file that all lines take."""
        return sum(map(len, self.lines)) + len(self.lines)

    @property
    def end(self) -> int:
        """The bytes of the file up to the end of the block."""
        return self.start + self.size

    @property
    def instances(self) -> ArrowColumns:
        """The instances of the rows to send."""
        return ArrowColumns(self.batch, named=isinstance(self.contract.input, Named))

    @property
    def texts(self) -> list[bytes]:
        """The lines that hold instances, without their ends."""
        return [line.rstrip(b"\r") for line in self.lines if line not in _BLANK]

    def line_number(self, index: int) -> int:
        """Return the number of the line of an instance."""
        numbers = (number for number, line in enumerate(self.lines, self.number + 1) if line not in _BLANK)
        return next(islice(numbers, index, None))

    def rows(self) -> Iterator[Row]:
        """Read the lines as rows."""
        data = b"\n".join(self.lines) + b"\n"
        return read_csv_lines(self.table, self.contract, data, number=self.number, end=self.start)

    def halves(self) -> list[Block]:
        """Split the block in two: it is too large for one job."""
        rows = list(self.rows())
        middle = len(rows) // 2
        return [RowBlock(self.contract, rows[:middle], "arrow"), RowBlock(self.contract, rows[middle:], "arrow")]

    def split(self) -> list[Block]:
        """Split the block into smaller ones, whose rows are sent one after the other."""
        return split_by_rows(self.contract, list(self.rows()))

    def with_error(self, error: str) -> Block:
        """Return the block with an error of each row."""
        return RowBlock(self.contract, list(self.rows())).with_error(error)

    def pair(self, outcome: Outcome | None) -> list[Predicted]:
        """Return the lines with their predictions or errors."""
        job_error = None if outcome is None else describe_error(self.contract, outcome, self.valid_rows)
        if job_error is not None or not isinstance(outcome, Success):
            return [PredictedRow(row=row, error=job_error) for row in self.rows()]
        errors = {
            index: to_row_error(self.contract, error) for index, error in (outcome.prediction.errors or {}).items()
        }
        return [PredictedLines(self, outcome.prediction.predictions, errors)]


def read_line_blocks(
    table: Table, contract: Contract, rows: Iterator[Row], converter: CsvConverter, rows_per_job: int
) -> Iterator[Block | None]:
    """Yield the lines of a CSV in blocks of at most `rows_per_job` lines and MAX_BLOCK_BYTES; None while idle.

    `rows` are those of the table, from which lines are read that cannot be converted together.
    """
    lines = table.lines
    while True:
        while lines.is_idle():
            yield None
        ready = lines.peek(rows_per_job, MAX_BLOCK_BYTES, seconds=_PATIENCE_SECONDS)
        if not ready:
            return
        number, start = lines.number, lines.end
        batch = converter.convert(ready)
        if batch is None:
            if block := list(islice(rows, sum(line not in _BLANK for line in ready) or 1)):
                yield RowBlock(contract, block, "arrow")
            continue
        lines.skip(len(ready), sum(map(len, ready)))
        if batch.num_rows:
            yield LineBlock(contract=contract, table=table, lines=ready, number=number, start=start, batch=batch)
