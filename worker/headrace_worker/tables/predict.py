"""Predict a table, and when the model fails, find the rows for which it does.

    select columns ─> check ─> [predict, in halves if that fails] ─> predictions and errors

A row's answer never depends on other rows, so accepted rows go to the model in columns and coerced rows as
instances. A version whose rows depend on each other is predicted row by row.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.catalog.contract import Contract
from headrace.catalog.validation import check_method
from headrace_worker.failures import classify_error, describe_error, find_retry_cause
from headrace_worker.manifest import Limits, Manifest
from headrace_worker.runtimes.prediction_column import from_values, to_json_values
from headrace_worker.tables.check import CheckedTable, check_table, read_instances
from headrace_worker.tables.result import RowError, TableResult, prediction_type, to_type

#: The most rows that are checked and predicted at once: what is in memory besides the table.
_MAX_ROWS = 65_536


class Version(Protocol):
    """A version of a model in memory: `headrace_worker.models.loader.LoadedModel`."""

    manifest: Manifest

    @property
    def contract(self) -> Contract:
        """The input and output of the version."""
        ...

    def predict(self, method: str, instances: Sequence[Any]) -> list[Any]:
        """Return a JSON-able prediction for each instance."""
        ...

    def predict_table(self, method: str, batch: Any) -> Any:
        """Return an array of predictions for checked columns; None if the runtime takes instances only."""
        ...


class _Piece(NamedTuple):
    """Rows with their predictions, or one row with the error it raised."""

    rows: npt.NDArray[np.int64]
    predictions: Any
    error: BaseException | None = None


def predict_table(version: Version, method: str | None, table: pa.Table | pa.RecordBatch) -> TableResult:
    """Predict the rows of a table.

    A row that does not fit the contract, or for which the model fails, is an error of this row. Raises
    InvalidInput if the version has no such method or the table lacks a column, and errors that are no row's fault:
    a transient error of the model, and SoftTimeLimitExceeded.
    """
    checked_method = check_method(version.contract, method)
    kind = prediction_type(version.manifest, checked_method)
    results = [
        _predict_checked(version, checked_method, kind, check_table(version.contract, piece), first)
        for first, piece in _cut(table)
    ]
    errors = {row: error for result in results for row, error in result.errors.items()}
    if len(results) == 1:
        return results[0]
    return TableResult(predictions=_concatenate([result.predictions for result in results]), errors=errors)


def _cut(table: pa.Table | pa.RecordBatch) -> Iterator[tuple[int, Any]]:
    """Yield slices of a table, each with the number of its first row. A table without rows is one slice."""
    for first in range(0, max(table.num_rows, 1), _MAX_ROWS):
        yield first, table.slice(first, _MAX_ROWS)


def _predict_checked(version: Version, method: str, kind: Any, checked: CheckedTable, first: int) -> TableResult:
    errors = {
        first + row: RowError(reason="bad input", error="InvalidInput", message=message)
        for row, message in checked.errors.items()
    }
    pieces: list[_Piece] = []
    for piece in (
        *_predict_accepted(version, method, kind, checked),
        *_predict_coerced(version, method, kind, checked),
    ):
        if piece.error is None:
            pieces.append(piece)
        else:
            (row,) = piece.rows.tolist()
            errors[first + row] = _to_row_error(version, checked, row, piece.error)
    return TableResult(
        predictions=_scatter(pieces, checked.source.num_rows, kind), errors=dict(sorted(errors.items()))
    )


def _predict_accepted(version: Version, method: str, kind: Any, checked: CheckedTable) -> Iterator[_Piece]:
    """Predict the accepted rows in columns, or as instances if the runtime takes no columns."""
    rows = checked.accepted_rows

    def predict(first: int, last: int) -> Any:
        predictions = version.predict_table(method, checked.accepted.slice(first, last - first))
        if predictions is None:
            raise _TakesInstances
        return to_type(predictions, kind)

    limits = version.manifest.limits
    size = limits.max_batch_instances if limits.max_batch_instances < Limits().max_batch_instances else len(rows)
    try:
        yield from _predict_slices(rows, predict, limits, size)
    except _TakesInstances:
        size = limits.max_batch_instances
        for start in range(0, len(rows), size):
            instances = read_instances(version.contract, checked.source, rows[start : start + size])
            yield from _predict_instances(version, method, kind, rows[start : start + size], instances)


class _TakesInstances(Exception):  # it never leaves this file
    """The runtime takes instances only."""


def _predict_coerced(version: Version, method: str, kind: Any, checked: CheckedTable) -> Iterator[_Piece]:
    rows = np.array(list(checked.coerced), dtype=np.int64)
    yield from _predict_instances(version, method, kind, rows, list(checked.coerced.values()))


def _predict_instances(
    version: Version, method: str, kind: Any, rows: npt.NDArray[np.int64], instances: Sequence[Any]
) -> Iterator[_Piece]:
    def predict(first: int, last: int) -> Any:
        return to_type(from_values(version.predict(method, instances[first:last])), kind)

    limits = version.manifest.limits
    yield from _predict_slices(rows, predict, limits, limits.max_batch_instances)


def _predict_slices(
    rows: npt.NDArray[np.int64], predict: Callable[[int, int], Any], limits: Limits, size: int
) -> Iterator[_Piece]:
    size = 1 if limits.alone else max(size, 1)
    for first in range(0, len(rows), size):
        yield from _search(rows, predict, limits, first, min(first + size, len(rows)))


def _search(
    rows: npt.NDArray[np.int64], predict: Callable[[int, int], Any], limits: Limits, first: int, last: int
) -> Iterator[_Piece]:
    """Predict rows. Split a slice that fails until the failing row is alone: 2 log2(n) + 1 calls for one row.

    Raises the errors that are retried, as they are no row's fault.
    """
    try:
        predictions = predict(first, last)
    except _TakesInstances:
        raise
    except BaseException as error:  # a model may raise anything, KeyboardInterrupt too
        if find_retry_cause(error, limits) is not None:
            raise
        traceback.clear_frames(error.__traceback__)  # free what this call made before the next call
        if last - first == 1:
            yield _Piece(rows[first:last], None, error)
            return
    else:
        yield _Piece(rows[first:last], predictions)
        return
    middle = (first + last) // 2
    yield from _search(rows, predict, limits, first, middle)
    yield from _search(rows, predict, limits, middle, last)


def _to_row_error(version: Version, checked: CheckedTable, row: int, error: BaseException) -> RowError:
    instances = (
        [checked.coerced[row]]
        if row in checked.coerced
        else read_instances(version.contract, checked.source, [row])
    )
    return RowError(
        reason=classify_error(error), error=type(error).__name__, message=describe_error(error, instances)
    )


def _scatter(pieces: Sequence[_Piece], rows: int, kind: Any) -> Any:
    """Return an array of the predictions of all rows, null for those without one."""
    if not pieces:
        return pa.nulls(rows, kind or pa.null())
    if len(pieces) == 1 and len(pieces[0].rows) == rows:
        return pieces[0].predictions
    predictions = _concatenate([piece.predictions for piece in pieces])
    order = np.full(rows, -1, dtype=np.int64)
    order[np.concatenate([piece.rows for piece in pieces])] = np.arange(len(predictions))
    return predictions.take(pa.array(order, mask=order < 0))


def _concatenate(arrays: Sequence[Any]) -> Any:
    """Concatenate arrays. If they are of several types, as no type is known, they become of one that holds all."""
    kinds = {array.type for array in arrays if not pa.types.is_null(array.type)}
    if len(kinds) > 1:
        return from_values([value for array in arrays for value in to_json_values(array)])
    kind = next(iter(kinds), pa.null())
    return pa.concat_arrays([array if array.type == kind else pa.nulls(len(array), kind) for array in arrays])
