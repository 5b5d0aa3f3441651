"""Convert a model's output to a list of JSON-able predictions, one for each instance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from headrace.catalog.datetimes import to_text
from headrace.errors import ModelError


def check_count(predictions: int, instances: int) -> None:
    """Raise ModelError unless there are as many predictions as instances."""
    if predictions != instances:
        raise ModelError(
            f"the model returned {predictions} predictions for {instances} instances; it must return one for each"
        )


def to_predictions(output: Any, instances: int) -> list[Any]:
    """Convert an estimator's output for a number of instances to predictions; NaN and infinity become null.

    An array of shape (instances, ...) becomes nested lists. A list of arrays, one for each output of a
    multi-output classifier, and a tuple of arrays, as `kneighbors` returns, are transposed: a list for each
    instance. Datetimes become texts of ISO 8601, durations seconds, and bytes text. A row of a sparse matrix
    becomes `{"indices": [...], "values": [...]}`, its values other than 0. Raises ModelError unless there is one
    prediction for each instance.
    """
    dimensions = 1 if isinstance(output, tuple) else 2
    if (
        isinstance(output, list | tuple)
        and output
        and all(_is_block(block, instances, dimensions) for block in output)
    ):
        return [list(row) for row in zip(*(to_predictions(block, instances) for block in output), strict=True)]
    if sparse.issparse(output):
        return _to_sparse_rows(output, instances)
    if isinstance(output, list | tuple):  # of values that an array would make alike, such as tuples of labels
        check_count(len(output), instances)
        return [to_json_value(value) for value in output]
    if hasattr(output, "to_numpy"):
        output = output.to_numpy()
    array = np.asarray(output)
    if array.ndim == 0:
        raise ModelError(
            f"the model returned a single value for {instances} instances; it must return one prediction for each"
        )
    check_count(len(array), instances)
    if array.dtype.kind in "mMS":
        return _to_values(array)
    predictions: list[Any] = array.tolist()
    is_plain = array.dtype.kind in "iubU" or (array.dtype.kind == "f" and bool(np.isfinite(array).all()))
    return predictions if is_plain else [to_json_value(value) for value in predictions]


def _to_sparse_rows(output: Any, instances: int) -> list[Any]:
    rows = sparse.csr_array(output, copy=True)
    check_count(rows.shape[0], instances)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    bounds, indices, values = rows.indptr.tolist(), rows.indices.tolist(), to_json_value(rows.data)
    return [{"indices": indices[start:end], "values": values[start:end]} for start, end in pairwise(bounds)]


def _is_block(block: Any, instances: int, dimensions: int) -> bool:
    if isinstance(block, np.ndarray | pd.DataFrame | pd.Series) or sparse.issparse(block):
        return bool(block.ndim >= dimensions and block.shape[0] == instances)
    return False


def _to_values(array: Any) -> list[Any]:
    """Convert an array of datetimes, durations or bytes; numpy itself makes integers of nanoseconds."""
    if array.dtype.kind == "S":
        return list(to_json_value(array.tolist()))
    if array.dtype.kind == "m":
        return list(to_json_value((array / np.timedelta64(1, "s")).tolist()))
    texts = np.datetime_as_string(array).astype(object)
    texts[np.isnat(array)] = None
    return list(texts.tolist())


def to_json_value(value: Any) -> Any:
    """Convert a value to one that JSON has; None for a missing or infinite value."""
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    value = None if value is pd.NaT else to_text(value)
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return [to_json_value(item) for item in value.tolist()]
    if isinstance(value, Mapping):
        return {str(name): to_json_value(item) for name, item in value.items()}
    return None if value is pd.NA else str(value)
