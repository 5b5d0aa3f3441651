"""Build one column of an estimator's input, with the type of the column that the estimator was fitted on.

A type never depends on the values of a batch: jobs of different callers share batches, and a caller's answer must
not depend on theirs. So a column of integers that may have missing values is always float64, as pandas stores it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from headrace.catalog.contract import Array, Feature
from headrace.errors import InvalidInput, ModelError
from headrace_worker.runtimes.datetimes import make_datetime_builder

#: Converts the values of a column; None is a missing value.
ColumnBuilder = Callable[[Sequence[Any]], Any]

#: The names of a categorical type without and with an order of its categories. pandas writes both as `category`.
CATEGORY, ORDERED_CATEGORY = "category", "ordered category"
#: The name of Arrow's own type of texts. pandas writes it as it writes one of its own, `string[pyarrow]`.
ARROW_STRING = "arrow string"


def numpy_dtype(values: Feature | Array) -> Any:
    """Return numpy's type of a feature's column or of an array; None for a type that only pandas has.

    Datetimes have None too: their texts are no values of their type.
    """
    if values.kind in {"datetime", "date"}:
        return None
    if values.dtype is None:
        return _default_dtype(values)
    try:
        dtype = np.dtype(values.dtype)
    except TypeError:
        return None
    if dtype.kind in "iub" and values.nullable:
        return np.float64 if dtype.kind in "iu" else np.object_
    return dtype.type if dtype.kind in "iufbO" else None


def make_column_builder(feature: Feature, missing: float | None) -> ColumnBuilder:
    """Return a function that builds the column of a feature. `missing` is the missing value among objects.

    Raises ModelError for a type that the installed libraries do not have.
    """
    if feature.kind in {"datetime", "date"}:
        return make_datetime_builder(feature)
    dtype = numpy_dtype(feature)
    if dtype is np.object_:
        # A Series of objects stays one. pandas would convert a bare array of texts to its own type of strings.
        return lambda values: pd.Series(to_array(values, dtype, missing), dtype=object)
    if dtype is not None:
        return lambda values: to_array(values, dtype, missing, is_exact=feature.dtype is not None)
    if feature.dtype in {CATEGORY, ORDERED_CATEGORY}:
        categorical = pd.CategoricalDtype(
            list(feature.categories or ()), ordered=feature.dtype == ORDERED_CATEGORY
        )
        return lambda values: pd.Categorical(values, dtype=categorical)
    try:
        extension = extension_dtype(feature.dtype)
        pd.array([], dtype=extension)
    except (TypeError, ValueError, ImportError) as error:
        raise ModelError(
            f"feature {feature.name!r} was fitted as {feature.dtype!r}, a type that pandas {pd.__version__} does "
            f"not have here: {error}"
        ) from None
    return lambda values: _extension_array(values, extension)


def to_array(
    values: Sequence[Any], dtype: Any, missing: float | None, *, is_exact: bool = False
) -> npt.NDArray[Any]:
    """Convert values to an array. None becomes NaN among numbers, and `missing` among objects.

    Integers that a type of integers cannot hold become 64-bit floats, or, with `is_exact`, are refused. Raises
    InvalidInput.
    """
    if dtype is np.object_:
        array = np.array(values, dtype=object)
        if missing is not None:
            array[np.equal(array, None)] = missing  # type: ignore[call-overload]  # None is an object too
        return array
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:
        if is_exact:
            raise InvalidInput(f"a number does not fit in the model's type {np.dtype(dtype).name}") from None
        # JSON has integers of any size, arrays do not.
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            raise InvalidInput("a number is too large for a 64-bit float") from None


def extension_dtype(name: str | None) -> Any:
    """Return a type of pandas by its name in a contract. Raises TypeError, ValueError and ImportError."""
    if name != ARROW_STRING:
        return pd.api.types.pandas_dtype(name)
    import pyarrow as pa

    return pd.ArrowDtype(pa.string())


def _extension_array(values: Sequence[Any], dtype: Any) -> Any:
    try:
        return pd.array(values, dtype=dtype)
    except (OverflowError, TypeError, ValueError):
        raise InvalidInput(f"a value does not fit in the model's type {dtype}") from None


def _default_dtype(values: Feature | Array) -> Any:
    """Return the type that pandas gives to a column of this kind that it reads from a file."""
    kind = values.kind
    if isinstance(values, Feature) and kind == "category" and values.categories:
        types = {type(category) for category in values.categories}
        if types == {bool}:
            kind = "boolean"
        elif types <= {int, float}:
            kind = "integer" if types == {int} else "number"
    match kind:
        case "number":
            return np.float64
        case "integer":
            return np.float64 if values.nullable else np.int64
        case "boolean":
            return np.object_ if values.nullable else np.bool_
        case _:
            return np.object_
