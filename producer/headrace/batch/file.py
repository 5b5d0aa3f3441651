"""Predicts the rows of a file, or any iterable of instances."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.batch.blocks import Block, Predicted, PredictedRow, split_into_blocks
from headrace.batch.checkpoint import Checkpoint, describe_run, read_checkpoint
from headrace.batch.forms import IN_FLIGHT_BYTES, ROWS_PER_JOB, Form, choose_form
from headrace.batch.job_window import JobWindow
from headrace.batch.part_file import find_checkpoint
from headrace.batch.progress import Progress
from headrace.batch.reader import Format, Row, Table, check_row, choose_format, open_source, read_table
from headrace.batch.writers import (
    ERROR,
    CsvWriter,
    JsonWriter,
    Writer,
    check_target,
    open_target,
)
from headrace.catalog.class_labels import PREDICTION, name_prediction_columns
from headrace.catalog.contract import Contract, Named
from headrace.catalog.validation import check_method
from headrace.client.common import check_timeout
from headrace.connection.call_limit import limit_call
from headrace.errors import InvalidInput
from headrace.wire.limits import JobLimits
from headrace.wire.queues import BATCH_PRIORITY

if TYPE_CHECKING:
    from headrace.client import Client

#: Jobs under way at a time. It bounds the memory of a batch, whatever the length of the file.
IN_FLIGHT = 64


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a batch."""

    model: str
    version: str
    method: str
    rows: int
    failed: int
    #: The most rows that a job held. The limits of a job may permit fewer than `rows_per_job`.
    largest_job: int
    seconds: float


def predict_rows(
    client: Client,
    model: str,
    instances: Iterable[Any],
    *,
    version: str | None = None,
    method: str | None = None,
    priority: int = BATCH_PRIORITY,
    rows_per_job: int | None = None,
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
    timeout = check_timeout(timeout)
    with limit_call(timeout):
        contract = client.contract(model, version)
    window = JobWindow(
        client,
        contract,
        method=check_method(contract, method),
        priority=priority,
        in_flight=in_flight,
        durable=durable,
        deadline=None if timeout is None else time.monotonic() + timeout,
    )
    rows = (
        check_row(contract, Row(line=number, values={}, instance=instance))
        for number, instance in enumerate(instances, start=1)
    )
    return _each_row(window.predict(split_into_blocks(contract, rows, rows_per_job)))


def _each_row(blocks: Generator[list[Predicted]]) -> Iterator[PredictedRow]:
    with closing(blocks):
        for predicted in blocks:
            for item in predicted:
                yield from [item] if isinstance(item, PredictedRow) else item.rows()


def predict_file(
    client: Client,
    model: str,
    source: str | Path,
    target: str | Path,
    *,
    version: str | None = None,
    method: str | None = None,
    priority: int = BATCH_PRIORITY,
    rows_per_job: int | None = None,
    in_flight: int = IN_FLIGHT,
    format: Format | None = None,  # noqa: A002  # the option's name on the command line too
    delimiter: str | None = None,
    columns: Sequence[str] = (),
    durable: bool = False,
    timeout: float | None = None,
    force: bool = False,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> BatchReport:
    """Predict the rows of a CSV or JSON lines file, and write them with their predictions in the same order.

    One version predicts all rows, and is in the report: `version`, or the one that serves when the call begins
    (`Client.contract`). `-` is standard input or output. `format` is the format of a source or target whose name
    has no known ending. `columns` names the columns of a list or text, see `headrace.batch.columns`. `durable` is
    the option of `Client.submit`. `timeout` is in seconds for the whole file. `force` overwrites the target.
    With `resume`, the call goes on where a call for the same target has ended or was killed, with the version of
    that call, and keeps its unfinished output after an exception. Rows that fail are written with their error and
    counted in the report. The target is created when it is complete. Raises InvalidInput before any job is
    enqueued if the file cannot be read or lacks a column, or if the target cannot be written.
    """
    timeout, started = check_timeout(timeout), time.monotonic()
    source, target = str(source), str(target)
    with limit_call(timeout):
        contract = client.contract(model, version or (_resumed_version(source, target) if resume else None))
        form = choose_form(contract, client.accepted_columns(contract.model))
    checked_method = check_method(contract, method)
    source_format, target_format = choose_format(source, format), choose_format(target, format)
    check_target(target, source, force=force)
    if delimiter is None and source.lower().endswith(".tsv"):
        delimiter = "\t"
    options = (contract.model, contract.version, checked_method, source_format, target_format, delimiter)
    state = Checkpoint(run=describe_run(source, *options, list(columns)), version=contract.version)

    def report_progress() -> None:
        on_progress(Progress(rows=state.rows, failed=state.failed, bytes_read=state.bytes_read))

    def on_wait() -> None:
        writer.flush()  # the reader of the output can have the finished rows
        report_progress()

    window = JobWindow(
        client,
        contract,
        method=checked_method,
        priority=priority,
        in_flight=in_flight,
        in_flight_bytes=IN_FLIGHT_BYTES[form],
        durable=durable,
        deadline=None if timeout is None else started + timeout,
        on_wait=on_wait,
    )
    to_csv, output_form = target_format == "csv", contract.methods[checked_method]
    predictions = name_prediction_columns(output_form) if to_csv else (PREDICTION,)
    with open_source(source) as file:
        table = read_table(file, source_format, contract, name=source, delimiter=delimiter, column_names=columns)
        output_columns, rows = prepare_output(table, contract, (*predictions, ERROR), same_columns=to_csv)
        with open_target(target, run=state.run, resume=resume) as part_file:
            if part_file.checkpoint is not None:
                state = part_file.checkpoint
                if table.columns is None and to_csv:
                    next(rows, None)  # the first row, which was read for the columns
                table.lines.seek(state.bytes_read)
            blocks = read_blocks(table, contract, rows, rows_per_job, form)
            writer: Writer = JsonWriter(part_file.file, output_form)
            if to_csv:
                output_delimiter = "\t" if target.lower().endswith(".tsv") else table.delimiter
                is_new = part_file.checkpoint is None
                writer = CsvWriter(part_file.file, output_columns, predictions, output_delimiter, header=is_new)
            with closing(window.predict(blocks)) as predicted_blocks:
                for predicted in predicted_blocks:
                    for item in predicted:
                        writer.write(item)
                        state = _count(state, item)
                        report_progress()
                    writer.flush()
                    part_file.save(state)
            writer.flush()
    return BatchReport(
        model=contract.model,
        version=contract.version,
        method=checked_method,
        rows=state.rows,
        failed=state.failed,
        largest_job=window.largest_job,
        seconds=round(time.monotonic() - started, 3),
    )


def _resumed_version(source: str, target: str) -> str | None:
    """Return the version of the run that is resumed; None if there is none. Raises InvalidInput."""
    if source == "-" or target == "-" or (Path(target).exists() and not Path(target).is_file()):
        raise InvalidInput("only a run from a file to a file can be resumed; leave out --resume")
    checkpoint = read_checkpoint(find_checkpoint(Path(target).resolve()))
    return checkpoint.version if checkpoint else None


def read_blocks(
    table: Table, contract: Contract, rows: Iterator[Row], rows_per_job: int | None, form: Form
) -> Iterator[Block | None]:
    """Yield the rows of a table in blocks, each a job; None while its file is idle."""
    if form != "arrow" or table.columns is None or table.sent is None:
        return split_into_blocks(contract, rows, rows_per_job, form, is_idle=table.lines.is_idle)
    from headrace.batch.csv_blocks import read_line_blocks
    from headrace.batch.csv_columns import CsvConverter

    converter = CsvConverter(contract, table.columns, table.sent, table.delimiter)
    most_rows = JobLimits().max_values // len(table.sent.readers)
    return read_line_blocks(table, contract, rows, converter, rows_per_job or min(ROWS_PER_JOB[form], most_rows))


def _count(state: Checkpoint, predicted: Predicted) -> Checkpoint:
    """Return the state after these rows were written."""
    if isinstance(predicted, PredictedRow):
        rows, failed, end = 1, int(predicted.error is not None), predicted.row.end
    else:
        rows, failed, end = len(predicted.predictions), len(predicted.errors), predicted.block.end
    return msgspec.structs.replace(
        state, rows=state.rows + rows, failed=state.failed + failed, bytes_read=max(end, state.bytes_read)
    )


def prepare_output(
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
