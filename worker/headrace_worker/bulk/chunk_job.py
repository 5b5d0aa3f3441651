"""The chunk job of a run: read a piece of a file, predict its rows, and write them as a part.

    read a slice ─> was the run stopped? ─> predict it ─> write it ─> the next slice

A part is a pure function of the version, the content of the file and the piece, and its write is atomic. So a
chunk may run twice, and its output is the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.catalog.contract import Output
from headrace.catalog.validation import check_method
from headrace.wire.bulk import ChunkStep, Receipt
from headrace_worker.bulk.locations import Locations
from headrace_worker.bulk.part import open_part
from headrace_worker.bulk.read import read_piece
from headrace_worker.bulk.slices import Slice
from headrace_worker.models.loader import LoadedModel
from headrace_worker.tables.predict import predict_table
from headrace_worker.tables.result import RowError
from headrace_worker.tables.schema import contract_schema

#: Seconds between two looks whether the run was stopped. A slice may take a few milliseconds, and a look is a
#: round trip.
_LOOK_SECONDS = 0.5


class StoppedError(Exception):
    """The run of the chunk was stopped, or the chunk was cancelled."""


class Segment(NamedTuple):
    """Rows of a chunk that was split, from `first` to `last`, exclusive, as numbers in the piece."""

    first: int
    last: int
    #: The error of the row that ended its process; None for rows that were predicted.
    error: RowError | None


def run_chunk(
    model: LoadedModel, step: ChunkStep, locations: Locations, *, is_stopped: Callable[[], bool] = lambda: False
) -> Receipt:
    """Predict a chunk and write its part. Return its receipt.

    Some rows of a chunk that was split are only tried, and nothing is written. Raises StoppedError, InvalidInput
    if the file or the output cannot be used, and TransientError if a storage fails. A row that fails is in the
    receipt.
    """
    started_at = time.monotonic()
    receipt = (_try_rows if step.is_split else _write_part)(model, step, locations, _look_rarely(is_stopped))
    return msgspec.structs.replace(receipt, milliseconds=round((time.monotonic() - started_at) * 1000))


def _look_rarely(is_stopped: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that looks as `is_stopped`, but only now and then; False in between."""
    look_at = 0.0

    def look() -> bool:
        nonlocal look_at
        if time.monotonic() < look_at:
            return False
        look_at = time.monotonic() + _LOOK_SECONDS
        return is_stopped()

    return look


def rewrite_chunk(
    model: LoadedModel, step: ChunkStep, locations: Locations, segments: Sequence[Segment]
) -> Receipt:
    """Write the part of a chunk that was split, whose segments were tried. Each is predicted as it was then."""
    method = check_method(model.contract, step.method)
    with open_part(locations, step, _output_of(model, method)) as writer:
        for piece in read_piece(locations, step, contract_schema(model.contract)):
            writer.write(piece, *_predict_segments(model, method, piece, segments))
    assert writer.receipt is not None  # noqa: S101  # the block has ended
    return writer.receipt


def _write_part(
    model: LoadedModel, step: ChunkStep, locations: Locations, is_stopped: Callable[[], bool]
) -> Receipt:
    method = check_method(model.contract, step.method)
    with open_part(locations, step, _output_of(model, method)) as writer:
        for piece in read_piece(locations, step, contract_schema(model.contract)):
            if is_stopped():
                raise StoppedError
            result = predict_table(model, method, piece.rows)
            writer.write(piece, result.predictions, result.errors)
    assert writer.receipt is not None  # noqa: S101  # the block has ended
    return writer.receipt


def _try_rows(
    model: LoadedModel, step: ChunkStep, locations: Locations, is_stopped: Callable[[], bool]
) -> Receipt:
    method = check_method(model.contract, step.method)
    rows, reasons = 0, Counter[str]()
    for piece in read_piece(locations, step, contract_schema(model.contract)):
        if is_stopped():
            raise StoppedError
        result = predict_table(model, method, piece.rows)
        rows += piece.rows.num_rows
        refused = dict.fromkeys(piece.refused, "bad input")
        reasons.update(({index: error.reason for index, error in result.errors.items()} | refused).values())
    return Receipt(rows=rows, failed=reasons.total(), reasons=dict(sorted(reasons.items())))


def _predict_segments(
    model: LoadedModel, method: str, piece: Slice, segments: Sequence[Segment]
) -> tuple[Any, dict[int, RowError]]:
    """Predict a slice segment by segment. Return its predictions and errors."""
    import pyarrow as pa

    arrays: list[Any] = []
    errors: dict[int, RowError] = {}
    end = piece.first + piece.rows.num_rows
    for segment in segments:
        first, last = max(segment.first, piece.first), min(segment.last, end)
        if first >= last:
            continue
        offset = first - piece.first
        if segment.error is not None:
            arrays.append(None)
            errors[offset] = segment.error
            continue
        result = predict_table(model, method, piece.rows.slice(offset, last - first))
        predictions = result.predictions
        arrays += predictions.chunks if isinstance(predictions, pa.ChunkedArray) else [predictions]
        errors |= {offset + index: error for index, error in result.errors.items()}
    kind = next((array.type for array in arrays if array is not None), pa.null())
    return pa.chunked_array([pa.nulls(1, kind) if array is None else array for array in arrays], kind), errors


def _output_of(model: LoadedModel, method: str) -> Output:
    return model.contract.methods[method]
