"""Convert instances to what estimators take: frames, arrays, or lists of texts.

Frames and arrays are built by column, with the types that pandas uses for columns read from a file, because
estimators were fitted on these: numbers are float64, texts are objects, and a missing value is NaN in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.feature_extraction import DictVectorizer
from sklearn.pipeline import Pipeline

from headrace.catalog.contract import Array, Feature, Named, Text
from headrace.errors import InvalidInput
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.estimator_tree import iter_estimators

#: Converts a batch of instances to an estimator's input.
Stacker = Callable[[Sequence[Any]], Any]


def make_stacker(estimator: Any, input_schema: InputSchema) -> Stacker:
    """Return a function that converts instances which fit the schema to the estimator's input."""
    match input_schema:
        case Named():
            return _make_named_stacker(estimator, input_schema)
        case Array():
            dtype = _dtype(input_schema.kind, nullable=input_schema.nullable)
            missing = _missing_value(estimator)
            return lambda instances: to_array(instances, dtype, missing)
        case Text():
            return list


def make_number_stacker(input_schema: InputSchema) -> Stacker | None:
    """Return a function that converts instances to a float64 array with NaN for missing values.

    Return None if not all values are numbers.
    """
    match input_schema:
        case Named(features=features) if all(map(is_numeric, features)):
            pick = _make_picker([feature.name for feature in features])
            return lambda instances: to_array(list(map(pick, instances)), np.float64, None)
        case Array(kind=kind) if kind not in {"string", "category"}:
            return lambda instances: to_array(instances, np.float64, None)
        case _:
            return None


def to_float32(numbers: Any) -> Any:
    """Convert numbers to a float32 array. Raises InvalidInput if one is too large for that type."""
    try:
        with np.errstate(over="raise"):
            return np.asarray(numbers, dtype=np.float32, order="C")
    except FloatingPointError:
        raise InvalidInput(
            "a number is too large for a 32-bit float, which is what the model computes with"
        ) from None


def is_numeric(feature: Feature) -> bool:
    """Decide whether a feature holds only numbers or booleans."""
    if feature.kind == "category":
        return feature.categories is not None and not any(isinstance(value, str) for value in feature.categories)
    return feature.kind != "string"


def _make_named_stacker(estimator: Any, input_schema: Named) -> Stacker:
    names = [feature.name for feature in input_schema.features]
    if isinstance(_first_step(estimator), DictVectorizer):
        return lambda instances: [
            {name: instance[name] for name in names if instance[name] is not None} for instance in instances
        ]
    missing = _missing_value(estimator)
    dtypes = [column_dtype(feature) for feature in input_schema.features]
    pick = _make_picker(names)
    # An estimator without either attribute may need the names or only their number; a frame has both.
    if hasattr(estimator, "n_features_in_") and not hasattr(estimator, "feature_names_in_"):
        common = np.float64 if all(dtype is not np.object_ for dtype in dtypes) else np.object_
        return lambda instances: to_array(list(map(pick, instances)), common, missing)
    index = pd.Index(names, dtype=object)
    if all(dtype is np.float64 for dtype in dtypes):
        return lambda instances: pd.DataFrame(
            to_array(list(map(pick, instances)), np.float64, missing), columns=index
        )

    def build_frame(instances: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        columns = zip(*map(pick, instances), strict=True)
        arrays = [to_array(column, dtype, missing) for column, dtype in zip(columns, dtypes, strict=True)]
        # A Series of objects stays one. pandas would convert a bare array of texts to its own string type, whose
        # missing value is not the one the estimator may have been fitted with.
        series = {
            number: pd.Series(array, dtype=object) if array.dtype == object else array
            for number, array in enumerate(arrays)
        }
        frame = pd.DataFrame(series, copy=False)
        frame.columns = index
        return frame

    return build_frame


def _make_picker(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that returns the values of these names as a tuple."""
    if len(names) == 1:
        (name,) = names
        return lambda instance: (instance[name],)
    return itemgetter(*names)


def to_array(values: Sequence[Any], dtype: Any, missing: float | None) -> npt.NDArray[Any]:
    """Convert values to an array. None becomes NaN among numbers, and `missing` among objects."""
    if dtype is np.object_:
        array = np.array(values, dtype=object)
        if missing is not None:
            array[np.equal(array, None)] = missing  # type: ignore[call-overload]  # None is an object too
        return array
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:
        # JSON has integers of any size, arrays do not.
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            raise InvalidInput("a number is too large for a 64-bit float") from None


def column_dtype(feature: Feature) -> Any:
    """Return the type of the column for a feature."""
    if feature.kind == "category" and feature.categories:
        kinds = {type(category) for category in feature.categories}
        if kinds == {bool}:
            return _dtype("boolean", nullable=feature.nullable)
        if kinds <= {int, float}:
            return _dtype("integer" if kinds == {int} else "number", nullable=feature.nullable)
    return _dtype(feature.kind, nullable=feature.nullable)


def _dtype(kind: str, *, nullable: bool) -> Any:
    match kind:
        case "number":
            return np.float64
        case "integer":
            return np.float64 if nullable else np.int64
        case "boolean":
            return np.object_ if nullable else np.bool_
        case _:
            return np.object_


def _missing_value(estimator: Any) -> float | None:
    """Return the missing value for columns of objects: NaN, or None if the estimator was fitted on None."""
    for inner in iter_estimators(estimator):
        if getattr(inner, "missing_values", math.nan) is None:
            return None
        columns = getattr(inner, "categories_", None)
        if isinstance(columns, list) and any(value is None for categories in columns for value in categories):
            return None
    return math.nan


def _first_step(estimator: Any) -> Any:
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[0][1]
    return estimator
