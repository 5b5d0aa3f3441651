"""Infer the types of columns from an example that has none: JSON and CSV know texts and numbers only.

pandas reads a column of whole numbers as integers, and a column of texts as its own type of strings. Most models
predict the same from 64-bit floats and from objects, which also take a job's 41.5 and null. Trials find the
columns for which a model does not: it writes a number as text (`101`, not `101.0`), or selects columns by type.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from msgspec.structs import replace

from headrace.catalog.contract import Feature, Named
from headrace.wire.message import Instance
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.sklearn import SklearnRuntime


def infer_dtypes(
    estimator: Any, schema: InputSchema, instances: Sequence[Instance], methods: Sequence[str]
) -> InputSchema:
    """Return the schema with the types of the columns whose type changes a prediction of the example."""
    if not isinstance(schema, Named):
        return schema
    typed = {
        feature.name: alternative
        for feature in schema.features
        if (alternative := _as_pandas_reads_it(feature, instances)) is not None
    }
    expected = _predict(estimator, _with_types(schema, typed), instances, methods)
    if not typed or expected is None or _predict(estimator, schema, instances, methods) == expected:
        return schema
    chosen = {
        name: feature
        for name, feature in typed.items()
        if _predict(estimator, _with_types(schema, {**typed, name: None}), instances, methods) != expected
    }
    if _predict(estimator, _with_types(schema, chosen), instances, methods) != expected:
        chosen = typed  # columns that are alike may stand in for each other: no single one decides
    return _with_types(schema, chosen)


def _as_pandas_reads_it(feature: Feature, instances: Sequence[Any]) -> Feature | None:
    """Return the feature with the type that pandas gives its values; None if that is the usual one of its kind."""
    values = [instance[feature.name] for instance in instances]
    if feature.dtype is not None or all(value is None for value in values):
        return None
    if feature.kind == "number" and all(type(value) is int for value in values):
        return replace(feature, kind="integer", dtype="int64")
    if feature.kind == "string" and (dtype := str(pd.Series(values).dtype)) != "object":
        return replace(feature, dtype=dtype)
    return None


def _with_types(schema: Named, typed: Mapping[str, Feature | None]) -> Named:
    return Named(features=tuple(typed.get(feature.name) or feature for feature in schema.features))


def _predict(
    estimator: Any, schema: InputSchema, instances: Sequence[Instance], methods: Sequence[str]
) -> list[Any] | None:
    """Return the predictions of the methods that predict; None if none does."""
    runtime = SklearnRuntime(estimator, schema)
    predictions: list[Any] = []
    for method in methods:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                predictions.append(runtime.predict(method, instances))
        except Exception:  # noqa: BLE001  # an estimator may refuse a type with any error
            predictions.append(None)
    return None if all(prediction is None for prediction in predictions) else predictions
