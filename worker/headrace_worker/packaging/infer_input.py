"""Infer the input schema of a fitted estimator from an example, and widen it by trials."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from headrace.catalog.contract import Array, Feature, Kind, Named, Text, Tokens
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.estimator_tree import find_categories, may_take_tokens, takes_objects
from headrace_worker.runtimes.sklearn import SklearnRuntime

#: The largest number of trials of nulls and unseen categories in one call of the estimator.
_MAX_TRIALS = 256


def infer_input(estimator: Any, instances: Sequence[Any]) -> InputSchema:
    """Infer the schema that the instances of the example have, without trials. Raises ModelError."""
    if all(isinstance(instance, str) for instance in instances):
        return Text()
    if all(isinstance(instance, dict) for instance in instances):
        return _infer_named(estimator, instances)
    if any(isinstance(instance, dict | str) for instance in instances):
        raise ModelError("the example mixes objects, lists and texts; its instances must be alike")
    if _are_tokens(estimator, instances):
        return Tokens()
    values: list[Any] = []
    shape = _common_shape(list(instances), values)
    if shape is None:
        raise ModelError("the example's lists differ in length or depth; its instances must have one shape")
    return Array(shape=shape[1:], kind=infer_kind(values), nullable=None in values)


def widen_input(
    estimator: Any,
    input_schema: InputSchema,
    instances: Sequence[Instance],
    method: str,
    arguments: Mapping[str, Any] = MappingProxyType({}),
) -> InputSchema:
    """Return the schema with the nulls and unseen categories that the estimator accepts.

    Categories are closed where it fails on an unseen one.
    """

    def predict(schema: InputSchema, trial_instances: Sequence[Instance]) -> list[Any] | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runtime = SklearnRuntime(estimator, schema, arguments={method: arguments})
                return runtime.predict(method, trial_instances)
        except Exception:  # noqa: BLE001  # an estimator may refuse a value with any error
            return None

    def passes(schema: InputSchema, trial_instances: Sequence[Instance]) -> bool:
        predictions = predict(schema, trial_instances)
        return predictions is not None and not _has_null(predictions)

    match input_schema:
        case Named():
            expected = predict(input_schema, instances)
            return _widen_named(
                estimator, input_schema, instances, passes, lambda schema: predict(schema, instances) == expected
            )
        case Array() if not input_schema.nullable and input_schema.kind == "number":
            widened = replace(input_schema, nullable=True)
            return widened if passes(widened, [_array_of_nulls(input_schema.shape)]) else input_schema
        case _:
            return input_schema


def feature_names(estimator: Any) -> list[str] | None:
    """Return the names of the features that an estimator was fitted on; None if it was fitted without names."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def quote_names(names: Sequence[str]) -> str:
    """Quote names for an error message, the first five of them."""
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _infer_named(estimator: Any, instances: Sequence[dict[str, Any]]) -> Named:
    may_lack_keys = takes_objects(estimator)
    keys = dict.fromkeys(name for instance in instances for name in instance) if may_lack_keys else instances[0]
    names = feature_names(estimator) or list(keys)
    for number, instance in enumerate(() if may_lack_keys else instances):
        if different := set(names) ^ set(instance):
            raise ModelError(
                f"instance {number} of the example has other features than the first: "
                f"{quote_names(sorted(different))}; a missing value is null"
            )
    categories = find_categories(estimator, names)
    features = []
    for name in names:
        values = [instance.get(name) for instance in instances]
        kind = infer_kind(values)
        if _has_only(categories.get(name, []), int) and _has_only(values, int):
            kind = "integer"
        elif _has_only(categories.get(name, []), str) and all(value is None for value in values):
            kind = "string"
        features.append(
            Feature(
                name=name,
                kind=kind,
                nullable=any(instance.get(name, 0) is None for instance in instances),
                optional=any(name not in instance for instance in instances),
            )
        )
    return Named(features=tuple(features))


def _are_tokens(estimator: Any, instances: Sequence[Any]) -> bool:
    """Decide whether instances are lists of strings which a model does not take as rows of a table.

    Raises ModelError if some strings stand in lists of different lengths beside other values.
    """
    if not all(isinstance(instance, list) for instance in instances):
        return False
    has_strings = any(isinstance(value, str) for instance in instances for value in instance)
    lengths = {len(instance) for instance in instances}
    if not has_strings or (len(lengths) == 1 and not may_take_tokens(estimator)):
        return False
    for number, instance in enumerate(instances):
        for index, value in enumerate(instance):
            if not isinstance(value, str):
                raise ModelError(
                    f"instance {number} of the example has a {type(value).__name__} at [{index}]; lists of any "
                    "length hold strings only"
                )
    return True


def infer_kind(values: Sequence[Any]) -> Kind:
    """Return the kind of feature that has these values; None is a missing value."""
    if _has_only(values, bool):
        return "boolean"
    if all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values if value is not None
    ):
        return "number"
    return "string" if _has_only(values, str) else "category"


def _has_only(values: Sequence[Any], kind: type) -> bool:
    """Decide whether there are values that are not missing, and all of these have this type."""
    present = [value for value in values if value is not None and value == value]  # noqa: PLR0124  # NaN is missing
    return bool(present) and all(type(value) is kind for value in present)


def _widen_named(
    estimator: Any,
    input_schema: Named,
    instances: Sequence[Any],
    passes: Callable[[InputSchema, Sequence[Instance]], bool],
    keeps_predictions: Callable[[InputSchema], bool],
) -> Named:
    # Trials change one value of the instance with the fewest nulls, so that only the change decides.
    base = min(instances, key=lambda instance: sum(value is None for value in instance.values()))
    features = input_schema.features

    def accepts_null(trial_features: Sequence[Feature]) -> bool:
        names = dict.fromkeys(feature.name for feature in trial_features)
        widened = [replace(feature, nullable=True) if feature.name in names else feature for feature in features]
        schema = Named(features=tuple(widened))
        # With a missing value, a column of integers becomes one of floats.
        may_change = any(feature.kind == "integer" for feature in trial_features)
        return passes(schema, [base | {name: None} for name in names]) and (
            not may_change or keeps_predictions(schema)
        )

    not_nullable = [feature for feature in features if not feature.nullable]
    nullable = {feature.name for feature in _select_passing(not_nullable, accepts_null)}

    # A step before the encoder may have changed the column: texts that it made of numbers are no values of a job.
    names = [feature.name for feature in features]
    encoders = find_categories(estimator, names)
    categories = {
        feature.name: encoders[feature.name]
        for feature in features
        if feature.name in encoders and _may_hold(feature, encoders[feature.name])
    }
    encoded = [feature for feature in features if _unseen_value(categories.get(feature.name)) is not None]

    def accepts_unseen(trial_features: Sequence[Feature]) -> bool:
        names = [feature.name for feature in trial_features]
        return passes(input_schema, [base | {name: _unseen_value(categories[name])} for name in names])

    open_names = {feature.name for feature in _select_passing(encoded, accepts_unseen)}
    closed = {feature.name for feature in encoded} - open_names

    def widen(feature: Feature) -> Feature:
        if feature.name in nullable:
            feature = replace(feature, nullable=True)
        # A column of the type `category` has its own categories, in their order.
        if feature.name in closed and feature.categories is None:
            feature = replace(feature, kind="category", categories=_closed_categories(categories[feature.name]))
        return feature

    return Named(features=tuple(map(widen, features)))


def _select_passing(features: Sequence[Feature], passes: Callable[[Sequence[Feature]], bool]) -> list[Feature]:
    """Return the features that pass a trial. They are tried together, and in halves if that fails."""
    if not features:
        return []
    if len(features) <= _MAX_TRIALS and passes(features):
        return list(features)
    if len(features) == 1:
        return []
    middle = len(features) // 2
    return _select_passing(features[:middle], passes) + _select_passing(features[middle:], passes)


def _may_hold(feature: Feature, categories: Sequence[Any]) -> bool:
    """Decide whether a feature's values can be these categories, by their types."""
    if feature.kind in {"datetime", "date"}:
        return False
    is_text = feature.kind == "string"
    return feature.kind == "category" or all(
        isinstance(category, str) == is_text
        for category in categories
        if category == category  # noqa: PLR0124  # NaN
    )


def _unseen_value(categories: list[Any] | None) -> Any:
    """Return a value of the categories' type that is not one of them; None if there is none."""
    if not categories:
        return None
    if _has_only(categories, str):
        return "a category that was never seen"
    numbers = [value for value in categories if isinstance(value, int | float) and value == value]  # noqa: PLR0124
    if numbers and not any(isinstance(value, bool) for value in numbers):
        return int(max(numbers)) + 1
    return None


def _closed_categories(categories: list[Any]) -> tuple[str | int | float | bool, ...]:
    present = [value for value in categories if value is not None and value == value]  # noqa: PLR0124  # NaN
    # pandas stores integers with a missing value as floats, but people send 3 and not 3.0.
    return tuple(int(value) if isinstance(value, float) and value.is_integer() else value for value in present)


def _array_of_nulls(shape: Sequence[int]) -> Any:
    return None if not shape else [_array_of_nulls(shape[1:]) for _ in range(shape[0])]


def _common_shape(value: Any, values: list[Any]) -> tuple[int, ...] | None:
    """Return the shape of nested lists, None if they differ in shape. Append their values to `values`."""
    if not isinstance(value, list):
        values.append(value)
        return ()
    shapes = {_common_shape(item, values) for item in value}
    if len(shapes) != 1 or None in shapes:
        return None
    return (len(value), *(next(iter(shapes)) or ()))


def _has_null(value: Any) -> bool:
    return any(map(_has_null, value)) if isinstance(value, list) else value is None
