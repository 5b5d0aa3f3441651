"""Convert a model's output to a list of JSON-able predictions, one for each instance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

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
    multi-output classifier, is transposed. Sparse matrices and frames become dense. Raises ModelError unless
    there is one prediction for each instance.
    """
    if isinstance(output, list | tuple) and output and all(_is_block(block, instances) for block in output):
        return [list(row) for row in zip(*(to_predictions(block, instances) for block in output), strict=True)]
    if sparse.issparse(output):
        output = output.toarray()
    elif hasattr(output, "to_numpy"):
        output = output.to_numpy()
    array = np.asarray(output)
    if array.ndim == 0:
        raise ModelError(
            f"the model returned a single value for {instances} instances; it must return one prediction for each"
        )
    check_count(len(array), instances)
    predictions: list[Any] = array.tolist()
    is_plain = array.dtype.kind in "iubU" or (array.dtype.kind == "f" and bool(np.isfinite(array).all()))
    return predictions if is_plain else [to_json_value(value) for value in predictions]


def _is_block(block: Any, instances: int) -> bool:
    return isinstance(block, np.ndarray) and block.ndim == 2 and len(block) == instances


def to_json_value(value: Any) -> Any:
    """Convert a value to one that JSON has; None for a missing or infinite value."""
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return [to_json_value(item) for item in value.tolist()]
    if isinstance(value, Mapping):
        return {str(name): to_json_value(item) for name, item in value.items()}
    return None if value is pd.NA or value is pd.NaT else str(value)
