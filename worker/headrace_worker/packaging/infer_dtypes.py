"""Infer the types of columns from an example that has none: JSON and CSV know texts and numbers only.

pandas reads a column of whole numbers as integers, and a column of texts as its own type of strings. Most models
predict the same from 64-bit floats and from objects, which also take a job's 41.5 and null. Trials find the
columns for which a model does not: it writes a number as text (`101`, not `101.0`), or selects columns by type.
Texts of datetimes become datetimes where the model predicts from nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations, islice
from types import MappingProxyType
from typing import Any

import pandas as pd
from msgspec.structs import replace

from headrace.catalog.contract import Feature, Named
from headrace.catalog.datetimes import parse_datetime
from headrace.wire.message import Instance
from headrace_worker.runtimes import InputSchema
from headrace_worker.runtimes.sklearn import SklearnRuntime

#: The most sets of columns that are tried as datetimes.
_MAX_SUBSETS = 64


def infer_dtypes(
    estimator: Any,
    schema: InputSchema,
    instances: Sequence[Instance],
    methods: Sequence[str],
    arguments: Mapping[str, Any] = MappingProxyType({}),
) -> InputSchema:
    """Return the schema with the types of the columns whose type changes a prediction of the example."""
    if not isinstance(schema, Named):
        return schema
    schema = _with_needed_datetimes(estimator, schema, instances, methods, arguments)
    typed = {
        feature.name: alternative
        for feature in schema.features
        if (alternative := _as_pandas_reads_it(feature, instances)) is not None
    }
    expected = _predict(estimator, _with_types(schema, typed), instances, methods, arguments)
    if not typed or expected is None or _predict(estimator, schema, instances, methods, arguments) == expected:
        return schema
    chosen = {
        name: feature
        for name, feature in typed.items()
        if _predict(estimator, _with_types(schema, {**typed, name: None}), instances, methods, arguments)
        != expected
    }
    if _predict(estimator, _with_types(schema, chosen), instances, methods, arguments) != expected:
        chosen = typed  # columns that are alike may stand in for each other: no single one decides
    return _with_types(schema, chosen)


def _with_needed_datetimes(
    estimator: Any,
    schema: Named,
    instances: Sequence[Instance],
    methods: Sequence[str],
    arguments: Mapping[str, Any],
) -> Named:
    """Return the schema with those texts as datetimes without which no method predicts."""
    datetimes = {
        feature.name: alternative
        for feature in schema.features
        if (alternative := _as_datetimes(feature, instances)) is not None
    }
    if not datetimes:
        return schema
    typed = {
        feature.name: alternative
        for feature in schema.features
        if (alternative := _as_pandas_reads_it(feature, instances)) is not None
    }

    def predicts(types: Mapping[str, Feature]) -> bool:
        return any(
            _predict(estimator, _with_types(schema, trial), instances, methods, arguments) is not None
            for trial in (types, {**typed, **types})
        )

    # The fewest first: a column that the model reads as text must stay text.
    subsets = (names for size in range(len(datetimes)) for names in combinations(datetimes, size))
    for names in (*islice(subsets, _MAX_SUBSETS), tuple(datetimes)):
        chosen = {name: datetimes[name] for name in names}
        if predicts(chosen):
            return _with_types(schema, chosen)
    return schema


def _as_datetimes(feature: Feature, instances: Sequence[Any]) -> Feature | None:
    """Return the feature as datetimes or dates if all its texts are such; None otherwise."""
    texts = [instance[feature.name] for instance in instances if instance.get(feature.name) is not None]
    if feature.kind != "string" or not texts:
        return None
    try:
        zones = {parse_datetime(text).tzinfo for text in texts}
    except ValueError:
        return None
    if len(zones) != 1:
        return None
    if all(len(text) == len("2026-01-02") for text in texts):
        return replace(feature, kind="date", dtype="datetime64[us]")
    return replace(feature, kind="datetime", dtype="datetime64[us]" if zones == {None} else "datetime64[us, UTC]")


def _as_pandas_reads_it(feature: Feature, instances: Sequence[Any]) -> Feature | None:
    """Return the feature with the type that pandas gives its values; None if that is the usual one of its kind."""
    values = [instance.get(feature.name) for instance in instances]
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
    estimator: Any,
    schema: InputSchema,
    instances: Sequence[Instance],
    methods: Sequence[str],
    arguments: Mapping[str, Any],
) -> list[Any] | None:
    """Return the predictions of the methods that predict; None if none does."""
    runtime = SklearnRuntime(estimator, schema, arguments={methods[0]: arguments})
    predictions: list[Any] = []
    for method in methods:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                predictions.append(runtime.predict(method, instances))
        except Exception:  # noqa: BLE001  # an estimator may refuse a type with any error
            predictions.append(None)
    return None if all(prediction is None for prediction in predictions) else predictions
