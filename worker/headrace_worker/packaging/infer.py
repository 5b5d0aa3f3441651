"""Infer a contract: the input and outputs of a fitted estimator, found by calling it.

Names and order of features come from the estimator, kinds of values from the example. The rest is tried: a
feature is nullable if the estimator predicts with a null in it, and a category is closed if the estimator fails
on an unseen one. The result is shown to the user, who may correct it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from headrace.catalog.contract import Array, Contract, Feature, Named
from headrace.errors import ModelError
from headrace.text import nearest_name
from headrace.wire.message import Instance
from headrace_worker.packaging.infer_dtypes import infer_dtypes
from headrace_worker.packaging.infer_input import feature_names, infer_input, quote_names, widen_input
from headrace_worker.packaging.infer_methods import available_methods, infer_methods
from headrace_worker.runtimes import InputSchema


def infer(
    estimator: Any,
    instances: Sequence[Instance],
    *,
    model: str,
    method: str | None = None,
    typed: InputSchema | None = None,
    input_schema: InputSchema | None = None,
    arguments: Mapping[str, Any] = MappingProxyType({}),
) -> Contract:
    """Infer the contract of a model that has no version yet.

    `typed` is the schema of a typed table, whose types are kept. `input_schema` replaces the inferred input.
    `arguments` are constant arguments of the default method.

    Raises ModelError if the estimator cannot predict the example.
    """
    schema = (
        input_schema
        or typed
        or infer_dtypes(
            estimator,
            infer_input(estimator, instances),
            instances,
            available_methods(estimator, method),
            arguments,
        )
    )
    outputs, expected = infer_methods(estimator, schema, instances, method, arguments)
    default = next(iter(outputs))
    if input_schema is None:
        widened = widen_input(estimator, schema, instances, default, arguments)
        # A nullable column has another type. This must not change any prediction.
        with contextlib.suppress(ModelError):  # the estimator fails with that type
            if infer_methods(estimator, widened, instances, default, arguments) == (outputs, expected):
                schema = widened
    return Contract(model=model, version="0", input=schema, methods=outputs)


def order_features(estimator: Any, schema: InputSchema | None) -> InputSchema | None:
    """Return a table's schema with the features in the estimator's order; its columns may have any order."""
    names = feature_names(estimator)
    if names is None or schema is None:
        return schema
    if isinstance(schema, Named):
        by_name = {feature.name: feature for feature in schema.features}
        return Named(features=tuple(by_name[name] for name in names))
    # Rows of an array, for an estimator that was fitted on named columns.
    kind, nullable = (schema.kind, schema.nullable) if isinstance(schema, Array) else ("string", False)
    return Named(features=tuple(Feature(name=name, kind=kind, nullable=nullable) for name in names))


def to_instances(estimator: Any, example: Sequence[Any]) -> list[Instance]:
    """Convert an example to instances: rows become objects if the estimator was fitted on named features.

    Raises ModelError if the example does not have these names.
    """
    names = feature_names(estimator)
    if names is None:
        return list(example)
    if all(isinstance(row, list) and len(row) == len(names) for row in example):
        return [dict(zip(names, row, strict=True)) for row in example]
    if not all(isinstance(row, dict) for row in example):
        raise ModelError(f"the model was fitted on {len(names)} named features; the example must hold objects")
    present = {name for row in example for name in row}
    if missing := [name for name in names if name not in present]:
        similar = nearest_name(missing[0], present - set(names))
        hint = f"; did you mean its column {similar!r}?" if similar else ""
        raise ModelError(f"the example has no {quote_names(missing)}, which the model was fitted with{hint}")
    if extra := sorted(present - set(names)):
        raise ModelError(f"the example has {quote_names(extra)}, which the model was not fitted with; take it out")
    return list(example)
