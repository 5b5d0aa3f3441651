"""Infer the methods of a contract, and the outputs of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from headrace.catalog.contract import Output
from headrace.errors import ModelError
from headrace.wire.message import Instance
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.estimator_tree import METHODS, find_methods, is_prediction_method, iter_estimators
from headrace_worker.runtimes.predictions import to_predictions
from headrace_worker.runtimes.sklearn import SklearnRuntime

#: The methods that return a class, or a value for each class. Others may return as many values by chance.
_CLASS_METHODS = {"predict", "predict_proba", "predict_log_proba", "decision_function"}


def available_methods(estimator: Any, default: str | None) -> list[str]:
    """Return the methods that the estimator has, the default one first. Raises ModelError if it has none."""
    available = find_methods(estimator)
    is_other = (
        default is not None and is_prediction_method(default) and callable(getattr(estimator, default, None))
    )
    if default is not None and default not in available and not is_other:
        alternatives = f"it has {', '.join(available)}" if available else "it has none that predicts"
        raise ModelError(
            f"{type(estimator).__name__} has no method {default[:64]!r} that predicts; {alternatives}"
        )
    if not available:
        raise ModelError(
            f"{type(estimator).__name__} cannot predict for new instances: it has none of {', '.join(METHODS)}"
        )
    first = default or available[0]
    return [first, *(name for name in available if name != first)]


def infer_methods(
    estimator: Any,
    input_schema: InputSchema,
    instances: Sequence[Instance],
    default: str | None,
    arguments: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[dict[str, Output], dict[str, list[Any]]]:
    """Run each method on the example. Return the outputs for the contract, and the predictions, by method.

    `arguments` are constant arguments of the default method.

    Raises ModelError if the estimator has no method of METHODS, or the default method fails.
    """
    methods = available_methods(estimator, default)
    runtime = SklearnRuntime(estimator, input_schema, arguments={methods[0]: arguments})
    outputs, expected = run_methods(runtime.predict, methods, instances, getattr(estimator, "classes_", None))
    if "decision_function" in outputs and _compares_pairs(estimator):
        outputs["decision_function"] = Output(shape=outputs["decision_function"].shape)
    return outputs, expected


def _compares_pairs(estimator: Any) -> bool:
    """Decide whether a decision_function has a column for each pair of classes: three classes have three pairs."""
    return any(vars(inner).get("decision_function_shape") == "ovo" for inner in iter_estimators(estimator))


def run_methods(
    predict: Callable[[str, Sequence[Instance]], list[Any]],
    methods: Sequence[str],
    instances: Sequence[Instance],
    classes: Any = None,
) -> tuple[dict[str, Output], dict[str, list[Any]]]:
    """Run methods, the default one first, on the example. Methods that fail are left out.

    Raises ModelError if the default method fails.
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
        outputs[name] = _describe_output(classes, name, predictions)
    return outputs, expected


def _describe_output(classes: Any, method: str, predictions: list[Any]) -> Output:
    shape = _common_shape(predictions)[1:]
    if method not in _CLASS_METHODS or not isinstance(classes, np.ndarray) or classes.ndim != 1:
        return Output(shape=shape)
    # A decision_function of two classes has one column, the score of the second class: it gets no classes.
    if shape == (() if method == "predict" else (len(classes),)):
        return Output(shape=shape, classes=tuple(to_predictions(classes, len(classes))))
    return Output(shape=shape)


def _common_shape(value: Any) -> tuple[int, ...]:
    """Return the dimensions of nested lists that all of them have in common."""
    if not isinstance(value, list):
        return ()
    shapes = [_common_shape(item) for item in value]
    common: list[int] = []
    for lengths in zip(*shapes, strict=False):
        if len(set(lengths)) > 1:
            break
        common.append(lengths[0])
    return (len(value), *common)
