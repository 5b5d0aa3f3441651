"""Convert instances to what estimators take: frames, arrays, or lists of texts.

Frames are built by column (`columns`), with the types that the estimator was fitted on. Where a contract names
none, these are the usual types: numbers are float64, texts are objects, and a missing value is NaN in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from headrace.catalog.contract import Array, Feature, Named, Text, Tokens
from headrace.errors import InvalidInput, ModelError
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.columns import make_column_builder, numpy_dtype, to_array
from headrace_worker.runtimes.estimator_tree import iter_estimators, takes_objects

#: Converts a batch of instances to an estimator's input.
Stacker = Callable[[Sequence[Any]], Any]


class EstimatorInput(NamedTuple):
    """The facts about an estimator that decide what it takes."""

    #: True for an object for each row, which may lack keys, and not a table.
    is_objects: bool
    #: True for an array: the estimator was fitted on columns without names.
    is_array: bool
    #: The missing value for columns of objects: NaN, or None if the estimator was fitted on None.
    missing: float | None


def describe_input(estimator: Any) -> EstimatorInput:
    """Return the facts about an estimator's input."""
    return EstimatorInput(
        is_objects=takes_objects(estimator),
        # An estimator without either attribute may need the names or only their number; a frame has both.
        is_array=hasattr(estimator, "n_features_in_") and not hasattr(estimator, "feature_names_in_"),
        missing=_missing_value(estimator),
    )


def make_stacker(estimator: Any, input_schema: InputSchema) -> Stacker:
    """Return a function that converts instances which fit the schema to the estimator's input."""
    match input_schema:
        case Named():
            return _make_named_stacker(estimator, input_schema)
        case Array(kind="datetime" | "date"):
            raise ModelError(
                "the contract takes lists of datetimes, which no model has; datetimes are named features: objects"
            )
        case Array():
            dtype, missing = numpy_dtype(input_schema), _missing_value(estimator)
            is_exact = input_schema.dtype is not None
            return lambda instances: to_array(instances, dtype, missing, is_exact=is_exact)
        case Text() | Tokens():
            return list


def make_number_stacker(input_schema: InputSchema) -> Stacker | None:
    """Return a function that converts instances to a float64 array with NaN for missing values.

    Return None if not all values are numbers.
    """
    match input_schema:
        case Named(features=features) if all(map(is_numeric, features)):
            pick = _make_picker([feature.name for feature in features])
            return lambda instances: to_array(list(map(pick, instances)), np.float64, None)
        case Array(kind=kind) if kind in {"number", "integer", "boolean"}:
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
    return feature.kind in {"number", "integer", "boolean"}


def _make_named_stacker(estimator: Any, input_schema: Named) -> Stacker:
    names = [feature.name for feature in input_schema.features]
    facts = describe_input(estimator)
    if facts.is_objects:
        # A vectorizer computes with None. Where a key cannot be absent, null says that it is.
        optional = {feature.name for feature in input_schema.features if feature.optional}
        return lambda instances: [
            {
                name: instance[name]
                for name in names
                if name in instance and (instance[name] is not None or name in optional)
            }
            for instance in instances
        ]
    check_no_optional(input_schema)
    missing = facts.missing
    common = common_dtype(input_schema)
    is_exact = any(feature.dtype is not None for feature in input_schema.features)
    pick = _make_picker(names)

    def build_array(instances: Sequence[Mapping[str, Any]]) -> Any:
        return to_array(list(map(pick, instances)), common, missing, is_exact=is_exact)

    has_datetimes = any(feature.kind in {"datetime", "date"} for feature in input_schema.features)
    if facts.is_array and not has_datetimes:
        return build_array
    index = pd.Index(names, dtype=object)
    if all(numpy_dtype(feature) is common for feature in input_schema.features) and common is not np.object_:
        return lambda instances: pd.DataFrame(build_array(instances), columns=index)
    builders = [make_column_builder(feature, missing) for feature in input_schema.features]

    def build_frame(instances: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        columns = zip(*map(pick, instances), strict=True)
        arrays = {
            number: build(column) for number, (build, column) in enumerate(zip(builders, columns, strict=True))
        }
        frame = pd.DataFrame(arrays, copy=False)
        frame.columns = index
        return frame

    return build_frame


def check_no_optional(input_schema: InputSchema) -> None:
    """Raise ModelError if an instance may leave out a feature, for a model that takes a value of each."""
    features = input_schema.features if isinstance(input_schema, Named) else ()
    for feature in features:
        if feature.optional:
            raise ModelError(
                f"feature {feature.name!r} is optional, and the model takes a value of each feature; only a "
                "DictVectorizer, a FeatureHasher or a Python object takes rows that lack keys"
            )


def has_plain_numbers(input_schema: Named) -> bool:
    """Decide whether an array of these features equals the array that scikit-learn makes of their frame."""
    return all(numpy_dtype(feature) in _PLAIN_NUMBERS for feature in input_schema.features)


#: Types that numpy and pandas combine alike.
_PLAIN_NUMBERS = {np.float64, np.float32, np.int64, np.int32}


def common_dtype(input_schema: Named) -> Any:
    """Return the type of an array that holds all features."""
    dtypes = [numpy_dtype(feature) for feature in input_schema.features]
    if has_plain_numbers(input_schema):
        return np.result_type(*dtypes).type
    return np.float64 if all(dtype not in {None, np.object_} for dtype in dtypes) else np.object_


def _make_picker(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that returns the values of these names as a tuple."""
    if len(names) == 1:
        (name,) = names
        return lambda instance: (instance[name],)
    return itemgetter(*names)


def _missing_value(estimator: Any) -> float | None:
    for inner in iter_estimators(estimator):
        if getattr(inner, "missing_values", math.nan) is None:
            return None
        columns = getattr(inner, "categories_", None)
        if isinstance(columns, list) and any(value is None for categories in columns for value in categories):
            return None
    return math.nan
