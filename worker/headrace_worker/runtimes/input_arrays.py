"""Instances as estimators take them: frames, arrays, or lists of texts.

Frames and arrays are built by column, with the types pandas gives columns it reads from a file: numbers are
float64 with NaN where missing, texts are objects with NaN where missing. That is what estimators were fitted on.
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
from headrace_worker.runtimes.estimator_tree import iter_estimators

_Column = npt.NDArray[Any]
#: Makes of a batch of instances what the estimator takes.
Stacker = Callable[[Sequence[Any]], Any]


def make_stacker(estimator: Any, given: Named | Array | Text) -> Stacker:
    """What makes of instances that fit the contract what an estimator takes."""
    match given:
        case Named():
            return _stack_named(estimator, given)
        case Array():
            dtype = _dtype(given.kind, nullable=given.nullable)
            missing = _missing(estimator)
            return lambda instances: to_array(instances, dtype, missing)
        case Text():
            return list


def make_number_stacker(given: Named | Array | Text) -> Stacker | None:
    """What makes a float64 array of instances, missing values as NaN; None where not all are numbers."""
    match given:
        case Named(features=features) if all(map(is_numeric, features)):
            pick = _picker([feature.name for feature in features])
            return lambda instances: to_array(list(map(pick, instances)), np.float64, None)
        case Array(kind=kind) if kind not in {"string", "category"}:
            return lambda instances: to_array(instances, np.float64, None)
        case _:
            return None


def to_float32(numbers: Any) -> Any:
    """An array of numbers as float32. Raises InvalidInput where one is too large for that."""
    try:
        with np.errstate(over="raise"):
            return np.asarray(numbers, dtype=np.float32, order="C")
    except FloatingPointError:
        raise InvalidInput(
            "a number is too large for a 32-bit float, which is what the model computes with"
        ) from None


def is_numeric(feature: Feature) -> bool:
    """Whether a feature holds numbers or truth values, and nothing else."""
    if feature.kind == "category":
        return feature.categories is not None and not any(isinstance(value, str) for value in feature.categories)
    return feature.kind != "string"


def _stack_named(estimator: Any, given: Named) -> Stacker:
    names = [feature.name for feature in given.features]
    first = _first_step(estimator)
    if isinstance(first, DictVectorizer):
        return lambda rows: [{name: row[name] for name in names if row[name] is not None} for row in rows]
    missing = _missing(estimator)
    dtypes = [column_dtype(feature) for feature in given.features]
    pick = _picker(names)
    numbers = all(dtype is np.float64 for dtype in dtypes)
    # What tells neither names nor a number of features may need either; a frame has both.
    if hasattr(estimator, "n_features_in_") and not hasattr(estimator, "feature_names_in_"):
        common = np.float64 if all(dtype is not np.object_ for dtype in dtypes) else np.object_
        return lambda rows: to_array(list(map(pick, rows)), common, missing)
    index = pd.Index(names, dtype=object)
    if numbers:
        return lambda rows: pd.DataFrame(to_array(list(map(pick, rows)), np.float64, missing), columns=index)

    def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        columns = zip(*map(pick, rows), strict=True)
        arrays = [to_array(column, dtype, missing) for column, dtype in zip(columns, dtypes, strict=True)]
        # A Series keeps objects as objects; a bare array of texts becomes pandas' own type, whose missing
        # value is not the one an estimator may have been fitted with.
        columned = {
            place: pd.Series(array, dtype=object) if array.dtype == object else array
            for place, array in enumerate(arrays)
        }
        made = pd.DataFrame(columned, copy=False)
        made.columns = index
        return made

    return frame


def _picker(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) == 1:
        only = names[0]
        return lambda row: (row[only],)
    return itemgetter(*names)


def to_array(values: Sequence[Any], dtype: Any, missing: float | None) -> _Column:
    """An array of values; None in numbers is NaN."""
    if dtype is np.object_:
        whole = np.array(values, dtype=object)
        if missing is not None:
            whole[np.equal(whole, None)] = missing  # type: ignore[call-overload]  # None is an object too
        return whole
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:
        # JSON's integers have no bound, those of arrays have.
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            raise InvalidInput("a number is too large for a 64-bit float") from None


def column_dtype(feature: Feature) -> Any:
    """The type of the column that a feature becomes."""
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


def _missing(estimator: Any) -> float | None:
    """How a missing value among objects is written: NaN, unless the estimator was fitted on None."""
    for part in iter_estimators(estimator):
        if getattr(part, "missing_values", math.nan) is None:
            return None
        known = getattr(part, "categories_", None)
        if isinstance(known, list) and any(value is None for listed in known for value in listed):
            return None
    return math.nan


def _first_step(estimator: Any) -> Any:
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[0][1]
    return estimator
