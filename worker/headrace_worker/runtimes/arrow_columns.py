"""Build columns of an estimator's input from Arrow arrays: the columnar twin of `columns` and `datetimes`.

The arrays were checked against the contract (`headrace_worker.tables.check`), so each is of the type that belongs
to its feature: float64 or int64 numbers, booleans, texts, timestamps in UTC or without a zone, days, or a
dictionary of the feature's categories. A missing value is null; in a column of numbers it may be NaN.

The results are equal to those of `columns.make_column_builder` for the same values. They share no memory with the
table, as a model may write to its input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from headrace.catalog.contract import Feature
from headrace.errors import InvalidInput
from headrace_worker.runtimes.columns import (
    CATEGORY,
    ORDERED_CATEGORY,
    extension_dtype,
    numpy_dtype,
    to_array,
)
from headrace_worker.runtimes.datetimes import read_datetime_type

#: Converts an array.
ArrowBuilder = Callable[[Any], Any]


def make_arrow_builder(feature: Feature, missing: float | None) -> ArrowBuilder | None:
    """Return a function that builds the column of a feature from an array.

    `missing` is the missing value among objects. Return None for a feature whose rows must be predicted as
    instances, because its column depends on more than the array holds: whether a number was written as 1 or 1.0.
    """
    if feature.kind in {"datetime", "date"}:
        return _make_datetime_builder(feature)
    dtype = numpy_dtype(feature)
    if dtype is np.object_:
        if feature.kind == "number":
            return None
        return lambda array: pd.Series(to_objects(array, missing), dtype=object)
    if dtype is not None:
        if np.dtype(dtype).kind in "iub" and feature.kind in {"number", "string"}:
            return None
        return lambda array: to_numbers(array, dtype, is_exact=feature.dtype is not None)
    if feature.dtype in {CATEGORY, ORDERED_CATEGORY}:
        if not feature.categories:
            return None
        categorical = pd.CategoricalDtype(list(feature.categories), ordered=feature.dtype == ORDERED_CATEGORY)
        return lambda array: pd.Categorical.from_codes(_codes(array), dtype=categorical)
    extension = extension_dtype(feature.dtype)
    if not hasattr(extension, "__from_arrow__"):
        return None
    return lambda array: _to_extension(array, extension)


def view_numbers(array: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the values of an array of numbers without a copy. Those of nulls are arbitrary."""
    buffer = array.buffers()[1]
    if buffer is None or len(array) == 0:
        return np.zeros(len(array), dtype)
    width = np.dtype(dtype).itemsize
    return np.frombuffer(buffer, dtype, count=len(array), offset=array.offset * width)


def find_nulls(array: Any) -> npt.NDArray[np.bool_] | None:
    """Return which values of an array are null; None if none is."""
    if array.null_count == 0:
        return None
    nulls: npt.NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def decode(array: Any) -> Any:
    """Return an array of the values that an array of a dictionary stands for; another array as it is."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def to_numbers(array: Any, dtype: Any, *, is_exact: bool = False) -> npt.NDArray[Any]:
    """Convert numbers or booleans to an array of a type. Null becomes NaN among floats.

    Integers that a type of integers cannot hold become 64-bit floats, or, with `is_exact`, are refused, as
    `columns.to_array` does. Raises InvalidInput.
    """
    array = decode(array)
    kind = np.dtype(dtype).kind
    values: npt.NDArray[Any]
    if pa.types.is_boolean(array.type):
        values = array.fill_null(False).to_numpy(zero_copy_only=False)
    else:
        values = view_numbers(array, np.float64 if pa.types.is_floating(array.type) else np.int64)
    nulls = find_nulls(array)
    if kind == "f":
        column: npt.NDArray[Any] = values.astype(dtype)
        if nulls is not None:
            column[nulls] = np.nan
        return column
    if nulls is not None or (kind in "iu" and values.dtype.kind == "f"):
        return np.asarray(to_array(array.to_pylist(), dtype, None, is_exact=is_exact))
    if kind in "iu" and len(values):
        limits = np.iinfo(dtype)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            return np.asarray(to_array(values.tolist(), dtype, None, is_exact=is_exact))
    whole: npt.NDArray[Any] = values.astype(dtype)
    return whole


def to_objects(array: Any, missing: float | None) -> npt.NDArray[np.object_]:
    """Convert values to an array of Python's objects. Null and NaN become `missing`."""
    objects: npt.NDArray[np.object_]
    if pa.types.is_dictionary(array.type):
        values = to_objects(array.dictionary, missing)
        objects = np.full(len(array), None, dtype=object)
        codes = _codes(array)
        is_present = codes >= 0
        objects[is_present] = values[codes[is_present]]
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        objects = np.array(array.to_numpy(zero_copy_only=False), dtype=object)
    else:
        objects = np.empty(len(array), dtype=object)
        objects[:] = [None if value != value else value for value in array.to_pylist()]  # noqa: PLR0124  # NaN
    if missing is not None:
        objects[np.equal(objects, None)] = missing  # type: ignore[call-overload]  # None is an object too
    return objects


def _codes(array: Any) -> npt.NDArray[Any]:
    codes = view_numbers(array.indices, array.type.index_type.to_pandas_dtype())
    nulls = find_nulls(array.indices)
    return codes if nulls is None else np.where(nulls, -1, codes)


def _to_extension(array: Any, dtype: Any) -> Any:
    array = decode(array)
    if pa.types.is_floating(array.type):
        is_missing = np.isnan(to_numbers(array, np.float64))
        array = pa.array(view_numbers(array, np.float64), mask=is_missing)
    try:
        return dtype.__from_arrow__(pa.chunked_array([array]))
    except (pa.ArrowInvalid, OverflowError, TypeError, ValueError):
        raise InvalidInput(f"a value does not fit in the model's type {dtype}") from None


def _make_datetime_builder(feature: Feature) -> ArrowBuilder:
    if feature.kind == "date" and feature.dtype == "object":
        return lambda array: pd.Series(array.to_pylist(), dtype=object)
    unit, zone = read_datetime_type(feature)

    def build(array: Any) -> Any:
        column = _to_datetime64(array).astype(f"datetime64[{unit}]")
        return column if zone is None else pd.DatetimeIndex(column).tz_localize("UTC").tz_convert(zone)

    return build


def _to_datetime64(array: Any) -> npt.NDArray[Any]:
    if pa.types.is_date32(array.type):
        values = view_numbers(array, np.int32).astype("datetime64[D]").astype("datetime64[us]")
    else:
        values = view_numbers(array, np.int64).astype(f"datetime64[{array.type.unit}]")
    nulls = find_nulls(array)
    if nulls is not None:
        values[nulls] = np.datetime64("NaT")
    return values
