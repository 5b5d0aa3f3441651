"""What a model returned as a list of JSON-able predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from headrace.errors import ModelError


def to_predictions(output: Any, rows: int) -> list[Any]:
    """What an estimator returned as a list of one JSON-able prediction for each row; NaN and infinity are null.

    An array of shape (rows, ...) becomes nested lists; a list of arrays, one for each output of a multi-output
    classifier, is turned around; sparse matrices and frames are made dense.
    """
    if isinstance(output, list | tuple) and output and all(_is_block(block, rows) for block in output):
        return [list(row) for row in zip(*(to_predictions(block, rows) for block in output), strict=True)]
    if sparse.issparse(output):
        output = output.toarray()
    elif hasattr(output, "to_numpy"):
        output = output.to_numpy()
    array = np.asarray(output)
    if array.ndim == 0 or len(array) != rows:
        got = f"{len(array)} predictions" if array.ndim else "a single value"
        raise ModelError(f"the model gave {got} for {rows} instances; it must give one for each")
    listed: list[Any] = array.tolist()
    clean = array.dtype.kind in "iubU" or (array.dtype.kind == "f" and bool(np.isfinite(array).all()))
    return listed if clean else [to_json_value(value) for value in listed]


def _is_block(block: Any, rows: int) -> bool:
    return isinstance(block, np.ndarray) and block.ndim == 2 and len(block) == rows


def to_json_value(value: Any) -> Any:
    """A value as JSON knows it; None for what is missing or infinite."""
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
