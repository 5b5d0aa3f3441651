"""Predict a file: read, send, wait, write."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.batch.blocks import PredictedRow
from headrace.batch.job_window import JobWindow
from headrace.batch.progress import Progress
from headrace.batch.reader import Format, Row, Table, checked_row, format_of, open_source, read_table
from headrace.batch.writers import (
    ERROR,
    PREDICTION,
    CsvWriter,
    JsonWriter,
    Writer,
    check_target,
    open_target,
    prediction_columns,
)
from headrace.catalog.contract import Contract, Named
from headrace.catalog.validation import check_method
from headrace.errors import InvalidInput
from headrace.wire.keys import BATCH_PRIORITY

if TYPE_CHECKING:
    from headrace.client import Client

#: Rows in a job: enough that a job's own cost does not matter, few enough that a batch is spread over workers.
ROWS_PER_JOB = 100
#: Jobs under way at a time. With it the memory of a batch is bounded, whatever the file's length.
IN_FLIGHT = 64


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch."""

    model: str
    version: str
    method: str
    rows: int
    failed: int
    seconds: float


def predict_rows(
    client: Client,
    model: str,
    instances: Iterable[Any],
    *,
    version: str | None = None,
    method: str | None = None,
    priority: int = BATCH_PRIORITY,
    rows_per_job: int = ROWS_PER_JOB,
    in_flight: int = IN_FLIGHT,
    durable: bool = False,
    timeout: float | None = None,
) -> Iterator[PredictedRow]:
    """Predict any number of instances, in order, with a bounded number of jobs under way.

    Gives a `Predicted` for each instance: its `row` (`line` counts from 1), and `prediction` or `error`. An
    instance that does not fit the contract is not sent and has its error. `durable` is that of
    `Client.submit`. `timeout` is in seconds, for all of them; ResultTimeout is raised when it is over.
    Closing the iterator cancels what has no outcome yet.
    """
    contract = client.contract(model, version)
    flight = JobWindow(
        client,
        contract,
        method=check_method(contract, method),
        priority=priority,
        rows_per_job=rows_per_job,
        in_flight=in_flight,
        durable=durable,
        deadline=None if timeout is None else time.monotonic() + timeout,
    )
    numbered = enumerate(instances, start=1)
    return flight.predicted(
        checked_row(contract, Row(line=number, values={}, instance=instance)) for number, instance in numbered
    )


def predict_file(
    client: Client,
    model: str,
    source: str | Path,
    target: str | Path,
    *,
    version: str | None = None,
    method: str | None = None,
    priority: int = BATCH_PRIORITY,
    rows_per_job: int = ROWS_PER_JOB,
    in_flight: int = IN_FLIGHT,
    format: Format | None = None,  # noqa: A002  # the option's name on the command line too
    delimiter: str | None = None,
    columns: Sequence[str] = (),
    durable: bool = False,
    timeout: float | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> BatchReport:
    """Predict the rows of a CSV or JSON lines file, and write them with their predictions in the same order.

    `-` is standard input or output; `format` is the format of what has no telling file ending. `columns`
    names the columns of a list or text, see `headrace.batch.columns`. `durable` is that of `Client.submit`.
    `timeout` is in seconds for the whole.
    Rows that fail are written with their error and counted in the report. The target appears when it is
    whole. Raises InvalidInput before anything is enqueued for a file that cannot be read, lacks a column, or
    has no place to be written to.
    """
    started = time.monotonic()
    source, target = str(source), str(target)
    contract = client.contract(model, version)
    chosen = check_method(contract, method)
    kinds = format_of(source, format), format_of(target, format)
    check_target(target, source, force=force)
    if delimiter is None and source.lower().endswith(".tsv"):
        delimiter = "\t"
    rows = failed = end = 0

    def progress() -> None:
        on_progress(Progress(rows=rows, failed=failed, read=end))

    def wait() -> None:
        writer.flush()  # whoever reads our output waits too, and may have what there is
        progress()

    flight = JobWindow(
        client,
        contract,
        method=chosen,
        priority=priority,
        rows_per_job=rows_per_job,
        in_flight=in_flight,
        durable=durable,
        deadline=None if timeout is None else started + timeout,
        on_wait=wait,
    )
    with open_source(source) as file:
        table = read_table(file, kinds[0], contract, name=source, delimiter=delimiter, chosen=columns)
        predictions = prediction_columns(chosen, contract.methods[chosen]) if kinds[1] == "csv" else (PREDICTION,)
        carried, fit = _carried(table, contract, (*predictions, ERROR), same_keys=kinds[1] == "csv")
        with open_target(target) as out, closing(flight.predicted(fit)) as flown:
            writer: Writer = JsonWriter(out)
            if kinds[1] == "csv":
                writer = CsvWriter(
                    out, carried, predictions, "\t" if target.lower().endswith(".tsv") else table.delimiter
                )
            for done in flown:
                writer.write(done)
                rows, failed, end = rows + 1, failed + (done.error is not None), done.row.end
                progress()
            writer.flush()
    return BatchReport(
        model=contract.model,
        version=contract.version,
        method=chosen,
        rows=rows,
        failed=failed,
        seconds=round(time.monotonic() - started, 3),
    )


def _carried(
    table: Table, contract: Contract, added: Sequence[str], *, same_keys: bool
) -> tuple[Sequence[str], Iterator[Row]]:
    """The columns to write again in front of `added`, and the rows whose keys allow it.

    With `same_keys` every row needs the columns of the first one: a CSV has one header.
    """
    if table.columns is not None:
        taken = [name for name in table.columns if name in added]
        if taken:
            raise InvalidInput(
                f"the input has a column {taken[0]!r}, which the output is to add; rename it, or leave it out"
            )
        return table.columns, table.rows
    rows = table.rows
    columns: tuple[str, ...] = ()
    if same_keys:
        first = next(rows, None)
        if first is not None:
            rows = itertools.chain([first], rows)
        columns = tuple(first.values) if first and first.values else _names(contract)
        columns = tuple(name for name in columns if name not in added)
    return columns, (_without_clash(row, columns if same_keys else None, added) for row in rows)


def _without_clash(row: Row, columns: Sequence[str] | None, added: Sequence[str]) -> Row:
    for key in row.values:
        if key in added:
            problem = "the row has a key that the output is to add: rename `prediction` and `error`"
        elif columns is not None and key not in columns:
            problem = "the row has a key that the first row has not, and a CSV has the same columns in every row"
        else:
            continue
        return msgspec.structs.replace(row, instance=None, error=row.error or problem)
    return row


def _names(contract: Contract) -> tuple[str, ...]:
    if isinstance(contract.input, Named):
        return tuple(feature.name for feature in contract.input.features)
    return ("instance",)
