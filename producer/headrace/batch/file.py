"""Predicts the rows of a file, or any iterable of instances."""

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
from headrace.batch.reader import Format, Row, Table, check_row, choose_format, open_source, read_table
from headrace.batch.writers import (
    ERROR,
    PREDICTION,
    CsvWriter,
    JsonWriter,
    Writer,
    check_target,
    name_prediction_columns,
    open_target,
)
from headrace.catalog.contract import Contract, Named
from headrace.catalog.validation import check_method
from headrace.connection.call_limit import limit_call
from headrace.errors import InvalidInput
from headrace.wire.keys import BATCH_PRIORITY

if TYPE_CHECKING:
    from headrace.client import Client

#: Rows in a job: many enough that the cost of a job is small for each row, few enough to use several workers.
ROWS_PER_JOB = 100
#: Jobs under way at a time. It bounds the memory of a batch, whatever the length of the file.
IN_FLIGHT = 64


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a batch."""

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

    Returns an iterator with a `PredictedRow` for each instance: its `row` (`row.line` counts instances from 1),
    and its `prediction` or `error`. An instance that does not fit the contract is not sent and has an error.
    One version predicts all of them: `version`, or the one that serves now (`Client.contract`). `durable` is the
    option of `Client.submit`. `timeout` is in seconds for all instances; the iterator raises ResultTimeout when it
    has passed. Closing the iterator cancels the jobs without an outcome.
    """
    with limit_call(timeout):
        contract = client.contract(model, version)
    window = JobWindow(
        client,
        contract,
        method=check_method(contract, method),
        priority=priority,
        rows_per_job=rows_per_job,
        in_flight=in_flight,
        durable=durable,
        deadline=None if timeout is None else time.monotonic() + timeout,
    )
    return window.predict(
        check_row(contract, Row(line=number, values={}, instance=instance))
        for number, instance in enumerate(instances, start=1)
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

    One version predicts all rows, and is in the report: `version`, or the one that serves when the call begins
    (`Client.contract`). `-` is standard input or output. `format` is the format of a source or target whose name
    has no known ending. `columns` names the columns of a list or text, see `headrace.batch.columns`. `durable` is
    the option of `Client.submit`. `timeout` is in seconds for the whole file. `force` overwrites the target.
    Rows that fail are written with their error and counted in the report. The target is created when it is
    complete. Raises InvalidInput before any job is enqueued if the file cannot be read or lacks a column, or if
    the target cannot be written.
    """
    started = time.monotonic()
    source, target = str(source), str(target)
    with limit_call(timeout):
        contract = client.contract(model, version)
    checked_method = check_method(contract, method)
    source_format, target_format = choose_format(source, format), choose_format(target, format)
    check_target(target, source, force=force)
    if delimiter is None and source.lower().endswith(".tsv"):
        delimiter = "\t"
    progress = Progress()

    def on_wait() -> None:
        writer.flush()  # the reader of the output can have the finished rows
        on_progress(progress)

    window = JobWindow(
        client,
        contract,
        method=checked_method,
        priority=priority,
        rows_per_job=rows_per_job,
        in_flight=in_flight,
        durable=durable,
        deadline=None if timeout is None else started + timeout,
        on_wait=on_wait,
    )
    to_csv, form = target_format == "csv", contract.methods[checked_method]
    predictions = name_prediction_columns(form) if to_csv else (PREDICTION,)
    with open_source(source) as file:
        table = read_table(file, source_format, contract, name=source, delimiter=delimiter, column_names=columns)
        output_columns, rows = _prepare_output(table, contract, (*predictions, ERROR), same_columns=to_csv)
        with open_target(target) as output, closing(window.predict(rows)) as predicted_rows:
            writer: Writer = JsonWriter(output, form)
            if to_csv:
                output_delimiter = "\t" if target.lower().endswith(".tsv") else table.delimiter
                writer = CsvWriter(output, output_columns, predictions, output_delimiter)
            for predicted in predicted_rows:
                writer.write(predicted)
                progress = Progress(
                    rows=progress.rows + 1,
                    failed=progress.failed + (predicted.error is not None),
                    bytes_read=predicted.row.end,
                )
                on_progress(progress)
            writer.flush()
    return BatchReport(
        model=contract.model,
        version=contract.version,
        method=checked_method,
        rows=progress.rows,
        failed=progress.failed,
        seconds=round(time.monotonic() - started, 3),
    )


def _prepare_output(
    table: Table, contract: Contract, added: Sequence[str], *, same_columns: bool
) -> tuple[Sequence[str], Iterator[Row]]:
    """Return the columns to write before `added`, and the rows; rows whose keys cannot be written have an error.

    With `same_columns`, every row needs the columns of the first row: a CSV has one header.
    """
    if table.columns is not None:
        conflicts = [name for name in table.columns if name in added]
        if conflicts:
            raise InvalidInput(
                f"the input has a column {conflicts[0]!r}, which the output adds; rename or remove it"
            )
        return table.columns, table.rows
    rows = table.rows
    columns: tuple[str, ...] = ()
    if same_columns:
        first = next(rows, None)
        if first is not None:
            rows = itertools.chain([first], rows)
        columns = tuple(first.values) if first and first.values else _list_features(contract)
        columns = tuple(name for name in columns if name not in added)
    return columns, (_check_keys(row, columns if same_columns else None, added) for row in rows)


def _check_keys(row: Row, columns: Sequence[str] | None, added: Sequence[str]) -> Row:
    for key in row.values:
        if key in added:
            error = "the row has a key that the output adds: rename `prediction` and `error`"
        elif columns is not None and key not in columns:
            error = "the row has a key that the first row lacks, and a CSV has the same columns in every row"
        else:
            continue
        return msgspec.structs.replace(row, instance=None, error=row.error or error)
    return row


def _list_features(contract: Contract) -> tuple[str, ...]:
    if isinstance(contract.input, Named):
        return tuple(feature.name for feature in contract.input.features)
    return ("instance",)
