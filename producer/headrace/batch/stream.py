"""Predicts the rows of a stream while it arrives: `headrace batch` between two pipes, for a server.

Unlike `predict_file` it goes on from no former run, and its end is counted by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from headrace.batch.blocks import Predicted, PredictedRow
from headrace.batch.file import IN_FLIGHT, prepare_output, read_blocks
from headrace.batch.forms import IN_FLIGHT_BYTES, Form
from headrace.batch.job_window import JobWindow
from headrace.batch.reader import Format, read_table
from headrace.batch.writers import ERROR, CsvWriter, JsonWriter, Writer
from headrace.catalog.class_labels import PREDICTION, name_prediction_columns
from headrace.catalog.contract import Contract
from headrace.catalog.validation import check_method
from headrace.wire.queues import BATCH_PRIORITY

if TYPE_CHECKING:
    from headrace.client import Client


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a stream; see `headrace.batch.predict_file`."""

    file_format: Format
    form: Form
    method: str | None = None
    delimiter: str | None = None
    columns: Sequence[str] = ()
    rows_per_job: int | None = None
    priority: int = BATCH_PRIORITY
    #: The caller of the HTTP gateway that the jobs belong to.
    owner: str | None = None


class RowCounts(msgspec.Struct):
    """The rows that were written, and those of them with an error."""

    done: int = 0
    failed: int = 0

    def add(self, predicted: Predicted) -> None:
        """Count a row, or several lines."""
        if isinstance(predicted, PredictedRow):
            self.done += 1
            self.failed += predicted.error is not None
        else:
            self.done += len(predicted.predictions)
            self.failed += len(predicted.errors)


def predict_stream(
    client: Client,
    contract: Contract,
    source: BinaryIO,
    target: BinaryIO,
    options: StreamOptions,
    *,
    name: str,
    on_submit: Callable[[], None] = lambda: None,
    on_wait: Callable[[], None] = lambda: None,
) -> RowCounts:
    """Predict the rows of `source`, and write them to `target` in the same format and order.

    The version is that of the contract. `source` may have a method `wait` (`headrace.batch.reader.Lines`); `name`
    is its name for messages. `on_submit` is called before each job, `on_wait` about once a second while nothing
    arrives; both may raise to end the call. Jobs without an outcome are cancelled however it ends. Raises
    InvalidInput before anything is written if the columns do not fit; later if the source is no text.
    """
    method = check_method(contract, options.method)
    output, to_csv = contract.methods[method], options.file_format == "csv"
    predictions = name_prediction_columns(output) if to_csv else (PREDICTION,)
    window = JobWindow(
        client,
        contract,
        method=method,
        priority=options.priority,
        in_flight=IN_FLIGHT,
        in_flight_bytes=IN_FLIGHT_BYTES[options.form],
        owner=options.owner,
        on_submit=on_submit,
        on_wait=on_wait,
    )
    table = read_table(
        source,
        options.file_format,
        contract,
        name=name,
        delimiter=options.delimiter,
        column_names=options.columns,
    )
    columns, rows = prepare_output(table, contract, (*predictions, ERROR), same_columns=to_csv)
    writer: Writer = JsonWriter(target, output)
    if to_csv:
        writer = CsvWriter(target, columns, predictions, table.delimiter)
    counts = RowCounts()
    blocks = read_blocks(table, contract, rows, options.rows_per_job, options.form)
    with closing(window.predict(blocks)) as predicted_blocks:
        for predicted in predicted_blocks:
            for item in predicted:
                writer.write(item)
                counts.add(item)
            writer.flush()
    writer.flush()  # the columns of a CSV without rows
    return counts
