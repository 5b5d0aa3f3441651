"""Write the part of a chunk: its rows with their predictions.

A part is a pure function of the version, the content of the file and the piece of it. Its name is fixed by the
chunk, and it appears whole, so writing it twice leaves the same bytes. Its receipt lies in it (Parquet), or in a
small file of its own below `_headrace/` (text): the parts alone say which chunks are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa

from headrace.catalog.contract import Output
from headrace.wire.bulk import ChunkStep, Receipt
from headrace_worker.bulk.encoders import Encoder, PartRows
from headrace_worker.bulk.errors_part import ErrorsWriter, open_errors
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.ownership import check_owner
from headrace_worker.bulk.receipts import PartReceipt, write_receipt
from headrace_worker.bulk.slices import Slice
from headrace_worker.bulk.sources import read_form
from headrace_worker.bulk.text_encoders import open_encoder


class RowError(Protocol):
    """The error of a row."""

    @property
    def reason(self) -> str:
        """The class of the error, a word or two."""
        ...

    @property
    def message(self) -> str:
        """The error, without a value of the row."""
        ...


class _RefusedRow(msgspec.Struct, frozen=True):
    """The error of a row that could not be read."""

    message: str
    reason: str = "bad input"


class PartWriter:
    """Writes the part of a chunk, and the part of its errors if it has any (`open_part`)."""

    def __init__(self, step: ChunkStep, encoder: Encoder, errors: ErrorsWriter) -> None:
        self._step, self._encoder, self._errors = step, encoder, errors
        self._rows = self._failed = 0
        self._reasons: dict[str, int] = {}
        #: The outcome of the chunk, once the block of `open_part` has ended.
        self.receipt: Receipt | None = None

    def write(self, piece: Slice, predictions: Any, errors: Mapping[int, RowError]) -> None:
        """Write the rows of a slice.

        `predictions` is a pyarrow Array with an entry for each row, and `errors` has the errors by the index of
        the row. Rows that could not be read have theirs already: they are refused whatever their prediction is.
        """
        failures: dict[int, RowError] = dict(errors)
        failures.update({index: _RefusedRow(message) for index, message in piece.refused.items()})
        if isinstance(predictions, pa.ChunkedArray):
            predictions = predictions.combine_chunks()
        messages = pa.nulls(piece.rows.num_rows, pa.string())
        if failures:
            texts: list[str | None] = [None] * piece.rows.num_rows
            for index, failure in failures.items():
                texts[index] = failure.message
                self._reasons[failure.reason] = self._reasons.get(failure.reason, 0) + 1
            messages = pa.array(texts, pa.string())
            is_valid = np.ones(piece.rows.num_rows, dtype=bool)
            is_valid[list(failures)] = False
            indexes = pa.array(np.arange(len(is_valid)), mask=~is_valid)
            predictions = predictions.take(indexes)
            self._errors.add(piece, failures)
        self._encoder.add(PartRows(piece, predictions, messages))
        self._rows += piece.rows.num_rows
        self._failed += len(failures)

    def summarise(self) -> PartReceipt:
        """Return the receipt of the rows that were written."""
        step = self._step
        return PartReceipt(
            run=step.run,
            chunk=step.chunk,
            version=step.version,
            input=step.input,
            content=step.content,
            first=step.first,
            last=step.last,
            row_range=step.rows,
            rows=self._rows,
            failed=self._failed,
            reasons=dict(sorted(self._reasons.items())),
        )


@contextmanager
def open_part(locations: Locations, step: ChunkStep, output: Output | None = None) -> Iterator[PartWriter]:
    """Open the part of a chunk. It appears when the block ends without an exception; otherwise nothing is left.

    `output` is the form of a prediction; it names the columns of a CSV and the keys of JSON lines. Raises
    InvalidInput before anything is written if the output belongs to another run, and TransientError if the
    storage fails.
    """
    form = read_form(step.output)
    file = locations.resolve(step.output, for_writing=True)
    check_owner(locations, step)
    with file.storage.write(file.path) as sink:
        # The errors appear before the part, which says that the chunk is done.
        with open_errors(locations, step) as errors, open_encoder(sink, form, step, output) as encoder:
            writer = PartWriter(step, encoder, errors)
            yield writer
            receipt = writer.summarise()
            encoder.finish(receipt)
        sink.flush()
        size = sink.tell()
    if form.format != "parquet":
        write_receipt(locations, step.output, receipt, size)
    writer.receipt = receipt.to_receipt(size)
