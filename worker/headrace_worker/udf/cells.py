"""A column of pandas as an Arrow array, also one whose Python objects have several types.

Arrow refuses such a column as a whole. A union holds each value with its own type, so that the check of the table
names the rows whose values do not fit, and accepts the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

#: The most types of values that a union can tell apart, and that a column of a table has.
_MAX_TYPES = 100


def to_array(column: pd.Series[Any]) -> Any:
    """Return the column as an Arrow array. NaN, None, NA and NaT are nulls."""
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return _to_union(column.astype(object).to_list(), column.isna().to_list())


def _to_union(values: Sequence[Any], missing: Sequence[bool]) -> Any:
    numbers: dict[type, int] = {}
    cells: list[list[Any]] = []
    types, offsets = [], []
    for value, is_missing in zip(values, missing, strict=True):
        kind = type(None) if is_missing else type(value)
        number = numbers.setdefault(kind, len(numbers)) if len(numbers) < _MAX_TYPES else numbers.get(kind, 0)
        if number == len(cells):
            cells.append([])
        types.append(number)
        offsets.append(len(cells[number]))
        cells[number].append(None if is_missing else value)
    return pa.UnionArray.from_dense(
        pa.array(types, pa.int8()), pa.array(offsets, pa.int32()), [_to_child(values) for values in cells]
    )


def _to_child(values: list[Any]) -> Any:
    """Return values of one type as an array. Objects of other types become empty structs, which fit nothing."""
    if isinstance(values[0], int) and not isinstance(values[0], bool):
        try:
            return pa.array(values, pa.int64())
        except OverflowError:  # integers of Python have any size
            values = [_to_float(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return pa.array([{}] * len(values), pa.struct([]))


def _to_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
