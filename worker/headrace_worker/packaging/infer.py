"""Infer a contract: what a fitted estimator takes and gives, found by asking it.

Names and order of features come from the estimator, kinds of values from the example. What a kind leaves open is
tried: a feature is nullable when the estimator predicts with a null in it; a category is closed when the estimator
fails on one it has not seen. The result is shown to a person, who knows better and may correct it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from headrace.catalog.contract import Array, Contract, Feature, Kind, Named, Output, Text
from headrace.errors import ModelError
from headrace.text import nearest_name
from headrace.wire.message import Instance
from headrace_worker.runtimes.estimator_tree import find_categories
from headrace_worker.runtimes.sklearn import SklearnRuntime

#: Methods a contract may offer, the likeliest default first. Each gives one prediction for each row.
METHODS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
    "transform",
)

#: Trials of nulls and unseen categories go to the estimator this many at once.
_TRIALS = 256

Input = Named | Array | Text


def to_instances(estimator: Any, example: Sequence[Any]) -> list[Instance]:
    """The example in the form of jobs: rows of an estimator that knows names become objects.

    Raises ModelError where the example does not fit the names.
    """
    names = _names_of(estimator)
    if names is None:
        return list(example)
    if all(isinstance(row, list) and len(row) == len(names) for row in example):
        return [dict(zip(names, row, strict=True)) for row in example]
    if not all(isinstance(row, dict) for row in example):
        raise ModelError(f"the model was fitted on {len(names)} named features; the example must hold objects")
    found = {name for row in example for name in row}
    if missing := [name for name in names if name not in found]:
        near = nearest_name(missing[0], found - set(names))
        meant = f"; is it {near!r} there?" if near else ""
        raise ModelError(f"the example has no {_listed(missing)}, which the model was fitted with{meant}")
    if extra := sorted(found - set(names)):
        raise ModelError(f"the example has {_listed(extra)}, which the model was not fitted with; take it out")
    return list(example)


def infer(
    estimator: Any,
    instances: Sequence[Instance],
    *,
    model: str,
    method: str | None = None,
    given: Input | None = None,
) -> Contract:
    """The contract of a model that has no version yet. With `given`, its input is not inferred.

    Raises ModelError when the estimator cannot predict the example.
    """
    plain = given or infer_input(estimator, instances)
    outputs, expected = infer_methods(estimator, plain, instances, method)
    first = next(iter(outputs))
    if given is None:
        tried = widen_input(estimator, plain, instances, first)
        # Columns that may hold a null have another type; that must change no prediction.
        if infer_methods(estimator, tried, instances, first) == (outputs, expected):
            plain = tried
    return Contract(model=model, version="0", input=plain, methods=outputs)


def infer_input(estimator: Any, instances: Sequence[Any]) -> Input:
    """What the instances of the example look like, before anything is tried. Raises ModelError."""
    if all(isinstance(instance, str) for instance in instances):
        return Text()
    if all(isinstance(instance, dict) for instance in instances):
        return _named(estimator, instances)
    if any(isinstance(instance, dict | str) for instance in instances):
        raise ModelError("the example mixes objects, lists and texts; its instances must be alike")
    values: list[Any] = []
    shape = _shape(list(instances), values)
    if shape is None:
        raise ModelError("the example's lists differ in length or depth; its instances must have one shape")
    return Array(shape=shape[1:], kind=_kind(values), nullable=None in values)


def widen_input(estimator: Any, given: Input, instances: Sequence[Instance], method: str) -> Input:
    """The input with what the estimator was found to take: nulls, and categories it has not seen."""

    def passes(trial: Input, rows: Sequence[Instance]) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                predictions = SklearnRuntime(estimator, trial).predict(method, rows)
        except Exception:  # noqa: BLE001  # an estimator may refuse a value with any error
            return False
        return not _has_null(predictions)

    match given:
        case Named():
            return _try_named(estimator, given, instances, passes)
        case Array() if not given.nullable and given.kind == "number":
            trial = replace(given, nullable=True)
            return trial if passes(trial, [_nulls(given.shape)]) else given
        case _:
            return given


def infer_methods(
    estimator: Any, given: Input, instances: Sequence[Instance], default: str | None
) -> tuple[dict[str, Output], dict[str, list[Any]]]:
    """What each method gives for the example: the outputs of the contract, and the predictions themselves.

    Raises ModelError when the estimator has no method a job could ask for, or the default one fails.
    """
    offered = [name for name in METHODS if callable(getattr(estimator, name, None))]
    if default is not None and default not in offered:
        had = f"it has {', '.join(offered)}" if offered else "it has none that predicts"
        raise ModelError(f"{type(estimator).__name__} has no method {default[:64]!r}; {had}")
    if not offered:
        raise ModelError(
            f"{type(estimator).__name__} cannot predict for new instances: it has none of {', '.join(METHODS)}"
        )
    first = default or offered[0]
    methods = [first, *(other for other in offered if other != first)]
    return run_methods(
        SklearnRuntime(estimator, given).predict, methods, instances, getattr(estimator, "classes_", None)
    )


def run_methods(
    predict: Callable[[str, Sequence[Instance]], list[Any]],
    methods: Sequence[str],
    instances: Sequence[Instance],
    classes: Any = None,
) -> tuple[dict[str, Output], dict[str, list[Any]]]:
    """What methods, the default one first, give for the example; those besides it that fail are left out.

    Raises ModelError when the default one fails.
    """
    outputs: dict[str, Output] = {}
    expected: dict[str, list[Any]] = {}
    for name in methods:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                predictions = predict(name, instances)
        except Exception as error:
            if name == methods[0]:
                raise ModelError(
                    f"the model cannot {name} the example: {type(error).__name__}: {' '.join(str(error).split())}"
                ) from error
            continue
        expected[name] = predictions
        outputs[name] = _output(classes, name, predictions)
    return outputs, expected


def _names_of(estimator: Any) -> list[str] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _named(estimator: Any, instances: Sequence[dict[str, Any]]) -> Named:
    names = _names_of(estimator) or list(instances[0])
    for number, instance in enumerate(instances):
        if unlike := set(names) ^ set(instance):
            raise ModelError(
                f"instance {number} of the example has other features than the rest: {_listed(sorted(unlike))}; "
                "a missing value is null"
            )
    known = find_categories(estimator, names)
    features = []
    for name in names:
        values = [instance.get(name) for instance in instances]
        kind = _kind(values)
        if _all(known.get(name, []), int) and _all(values, int):
            kind = "integer"
        elif _all(known.get(name, []), str) and all(value is None for value in values):
            kind = "string"
        features.append(Feature(name=name, kind=kind, nullable=None in values))
    return Named(features=tuple(features))


def _kind(values: Sequence[Any]) -> Kind:
    if _all(values, bool):
        return "boolean"
    if all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values if value is not None
    ):
        return "number"
    return "string" if _all(values, str) else "category"


def _all(values: Sequence[Any], kind: type) -> bool:
    """Whether all values that are not missing are of a type, and there are some."""
    present = [value for value in values if value is not None and value == value]  # noqa: PLR0124  # NaN is missing
    return bool(present) and all(type(value) is kind for value in present)


def _try_named(
    estimator: Any,
    given: Named,
    instances: Sequence[Any],
    passes: Callable[[Input, Sequence[Instance]], bool],
) -> Named:
    # The row with the fewest nulls is the one most alike to what is tried.
    base = min(instances, key=lambda instance: sum(value is None for value in instance.values()))
    open_ones = [feature for feature in given.features if not feature.nullable]

    def takes_null(some: Sequence[Feature]) -> bool:
        names = {feature.name for feature in some}
        trial = Named(
            features=tuple(
                replace(feature, nullable=True) if feature.name in names else feature for feature in given.features
            )
        )
        return passes(trial, [base | {feature.name: None} for feature in some])

    nullable = {feature.name for feature in _which(open_ones, takes_null)}

    known = find_categories(estimator, [feature.name for feature in given.features])
    encoded = [feature for feature in given.features if _unseen(known.get(feature.name)) is not None]

    def takes_unseen(some: Sequence[Feature]) -> bool:
        return passes(given, [base | {feature.name: _unseen(known[feature.name])} for feature in some])

    unseen = {feature.name for feature in _which(encoded, takes_unseen)}
    closed = {feature.name for feature in encoded} - unseen
    features = []
    for feature in given.features:
        if feature.name in nullable:
            feature = replace(feature, nullable=True)  # noqa: PLW2901  # the feature as it is known by now
        if feature.name in closed:
            feature = replace(feature, kind="category", categories=_closed(known[feature.name]))  # noqa: PLW2901
        features.append(feature)
    return Named(features=tuple(features))


def _which(features: Sequence[Feature], passes: Callable[[Sequence[Feature]], bool]) -> list[Feature]:
    """The features that pass a trial: all at once where they do, else found by halving."""
    if not features:
        return []
    if len(features) <= _TRIALS and passes(features):
        return list(features)
    if len(features) == 1:
        return []
    middle = len(features) // 2
    return _which(features[:middle], passes) + _which(features[middle:], passes)


def _unseen(known: list[Any] | None) -> Any:
    """A value of the categories' type that is none of them; None where there is no such value."""
    if not known:
        return None
    if _all(known, str):
        return "a category that was never seen"
    numbers = [value for value in known if isinstance(value, int | float) and value == value]  # noqa: PLR0124
    if numbers and not any(isinstance(value, bool) for value in numbers):
        return int(max(numbers)) + 1
    return None


def _closed(known: list[Any]) -> tuple[str | int | float | bool, ...]:
    present = [value for value in known if value is not None and value == value]  # noqa: PLR0124  # NaN is missing
    # A column of integers with a missing value is one of floats in pandas; people send 3, not 3.0.
    return tuple(int(value) if isinstance(value, float) and value.is_integer() else value for value in present)


def _nulls(shape: Sequence[int]) -> Any:
    return None if not shape else [_nulls(shape[1:]) for _ in range(shape[0])]


def _shape(value: Any, values: list[Any]) -> tuple[int, ...] | None:
    """The shape of nested lists, None where they differ; gathers their values."""
    if not isinstance(value, list):
        values.append(value)
        return ()
    shapes = {_shape(item, values) for item in value}
    if len(shapes) != 1 or None in shapes:
        return None
    return (len(value), *(next(iter(shapes)) or ()))


def _has_null(value: Any) -> bool:
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


def _output(classes: Any, method: str, predictions: list[Any]) -> Output:
    shape = _common_shape(predictions)[1:]
    if not isinstance(classes, np.ndarray) or classes.ndim != 1:
        return Output(shape=shape)
    # One column of decision_function for two classes is the score of the second.
    if (method == "predict" and not shape) or shape == (len(classes),):
        return Output(shape=shape, classes=tuple(classes.tolist()))
    return Output(shape=shape)


def _common_shape(value: Any) -> tuple[int, ...]:
    """The shape of nested lists, cut where they begin to differ."""
    if not isinstance(value, list):
        return ()
    shapes = [_common_shape(item) for item in value]
    common: list[int] = []
    for lengths in zip(*shapes, strict=False):
        if len(set(lengths)) > 1:
            break
        common.append(lengths[0])
    return (len(value), *common)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
