"""Convert a model's output to an Arrow array of predictions: the columnar twin of `predictions`.

Its values are those that `predictions.to_predictions` returns. Values that no Arrow type holds as they are, such
as lists of an integer and a text, become texts of JSON of Arrow's own type `arrow.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace_worker.runtimes.predictions import check_count, to_predictions


def to_prediction_column(output: Any, rows: int) -> Any:
    """Convert an estimator's output for a number of rows to an array of predictions; NaN and infinity become null.

    Raises ModelError unless there is one prediction for each row.
    """
    if not isinstance(output, np.ndarray) or output.ndim not in {1, 2} or not _has_arrow_type(output.dtype):
        return from_values(to_predictions(output, rows))
    check_count(len(output), rows)
    if output.dtype == np.float16:
        output = output.astype(np.float32)
    if output.ndim == 1:
        return _to_array(output)
    width = output.shape[1]
    if rows * width > np.iinfo(np.int32).max:
        return from_values(to_predictions(output, rows))
    offsets = np.arange(0, rows * width + 1, width or 1, dtype=np.int32)[: rows + 1]
    if width == 0:
        offsets = np.zeros(rows + 1, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), _to_array(np.ascontiguousarray(output).reshape(-1)))


def from_values(values: Sequence[Any]) -> Any:
    """Return an array of predictions as JSON has them: of texts of JSON if no type holds them as they are."""
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeError):
        return to_json_column(values)
    # Arrow makes floats of integers beside floats, and adds keys that an object lacks.
    return (
        array
        if not _may_change(array.type) or _are_same(array.to_pylist(), list(values))
        else to_json_column(values)
    )


def to_json_column(values: Sequence[Any]) -> Any:
    """Return an array of texts of JSON; None stays null."""
    texts = [None if value is None else msgspec.json.encode(value).decode() for value in values]
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


def to_json_values(column: Any) -> list[Any]:
    """Return the predictions of an array as JSON has them: as those of a job are."""
    if isinstance(column.type, pa.JsonType):
        return [text if text is None else msgspec.json.decode(text) for text in column.to_pylist()]
    return list(column.to_pylist())


def _has_arrow_type(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iubU" or (dtype.kind == "f" and dtype.itemsize <= 8)


def _to_array(values: Any) -> Any:
    """Convert numbers, booleans or texts; numbers that are not finite become null."""
    if values.dtype.kind == "f":
        is_missing = ~np.isfinite(values)
        return pa.array(values, mask=is_missing) if is_missing.any() else pa.array(values)
    return pa.array(values.tolist(), pa.string()) if values.dtype.kind == "U" else pa.array(values)


def _may_change(kind: Any) -> bool:
    types = pa.types
    if types.is_floating(kind) or types.is_struct(kind):
        return True
    return bool(types.is_list(kind)) and _may_change(kind.value_type)


def _are_same(first: Any, second: Any) -> bool:
    """Compare two values of JSON with their types."""
    if type(first) is not type(second):
        return False
    if isinstance(first, list):
        return len(first) == len(second) and all(map(_are_same, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            _are_same(value, second[name]) for name, value in first.items()
        )
    return bool(first == second)
