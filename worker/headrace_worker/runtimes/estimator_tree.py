"""Inspect a fitted estimator: the estimators within it, and the categories its encoders know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.pipeline import FeatureUnion, Pipeline

from headrace_worker.runtimes.scalers import make_transform

#: The methods a contract may have, the preferred default first. Each returns one prediction for each instance.
METHODS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "transform",
    "score_samples",
)
#: Further methods that return one prediction for each instance. A contract has one of them only if a person names
#: it, or if the estimator has none of METHODS.
_OTHER_METHODS = ("kneighbors", "radius_neighbors", "apply", "decision_path", "inverse_transform")


def is_model(value: Any) -> bool:
    """Decide whether an object has a method that a contract may have, whatever class it is of."""
    return not isinstance(value, type) and bool(find_methods(value))


def find_methods(value: Any) -> list[str]:
    """Return the methods of an object that a contract has by default, the preferred default first."""
    methods = [name for name in METHODS if callable(getattr(value, name, None))]
    return methods or [name for name in _OTHER_METHODS if callable(getattr(value, name, None))][:1]


def is_prediction_method(name: str) -> bool:
    """Decide whether a contract may have a method of this name. Methods that fit or change a model have others."""
    return name in METHODS or name in _OTHER_METHODS or (name.startswith("predict_") and name.isidentifier())


def iter_estimators(estimator: Any) -> Iterator[Any]:
    """Yield the estimator and every estimator within it once, both fitted ones and templates."""
    visited: set[int] = set()
    pending = [estimator]
    while pending:
        value = pending.pop()
        if id(value) in visited:
            continue
        if isinstance(value, BaseEstimator):
            visited.add(id(value))
            yield value
            pending.extend(vars(value).values())
        elif isinstance(value, Mapping):
            visited.add(id(value))
            pending.extend(value.values())
        elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
            visited.add(id(value))
            pending.extend(item for item in value if not isinstance(item, str | int | float))


def bind_threads(estimator: Any) -> None:
    """Let every estimator within an estimator predict with one thread: others do not survive a fork."""
    for inner in iter_estimators(estimator):
        library = type(inner).__module__.partition(".")[0]
        if vars(inner).get("n_jobs", 1) != 1 or library in {"lightgbm", "xgboost"}:
            inner.n_jobs = 1
        if library == "xgboost" and hasattr(inner, "get_booster") and inner.__sklearn_is_fitted__():
            inner.get_booster().set_param({"nthread": 1})


def split_pipeline(estimator: Any) -> tuple[Callable[[Any], Any], Any]:
    """Return a function that runs all steps of a pipeline but the last, and the last step, which predicts.

    For an estimator that is not a pipeline, the function returns its input, and the last step is the estimator.
    """
    transforms: list[Callable[[Any], Any]] = []
    while type(estimator) is Pipeline:  # a subclass may do more than run its steps
        *earlier, (_, estimator) = estimator.steps
        transforms += [make_transform(step) for _, step in earlier if step not in (None, "passthrough")]

    def transform(data: Any) -> Any:
        for step in transforms:
            data = step(data)
        return data

    return transform, estimator


def takes_objects(estimator: Any) -> bool:
    """Decide whether an estimator takes an object for each row, which may lack keys, and not a table."""
    first = _first_step(estimator)
    return isinstance(first, DictVectorizer) or (isinstance(first, FeatureHasher) and first.input_type == "dict")


def may_take_tokens(estimator: Any) -> bool:
    """Decide whether an estimator may take a list of strings of any length for each row: one that counts words."""
    return not hasattr(estimator, "n_features_in_") and any(
        isinstance(inner, CountVectorizer | HashingVectorizer | FeatureHasher)
        for inner in iter_estimators(estimator)
    )


def _first_step(estimator: Any) -> Any:
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[0][1]
    return estimator


def find_categories(estimator: Any, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Return the categories that encoders know, including missing values, by the input column they encode.

    A column is followed by its position through ColumnTransformer, FeatureUnion, meta-estimators, and steps that
    return as many columns as they take, such as an imputer.
    """
    if isinstance(estimator, ColumnTransformer):
        return _find_in_column_transformer(estimator, columns)
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps:
            if categories := find_categories(step, columns):
                return categories
        return {}
    encoded = getattr(estimator, "categories_", None)
    if isinstance(encoded, list):
        return {} if len(encoded) != len(columns) else dict(zip(columns, map(_to_list, encoded), strict=True))
    categories = {}
    for inner in _iter_same_input(estimator):
        categories.update(find_categories(inner, columns))
    return categories


def _iter_same_input(estimator: Any) -> Iterator[Any]:
    """Yield the fitted estimators within an estimator that receive the same columns as it does."""
    if isinstance(estimator, FeatureUnion):
        yield from (transformer for _, transformer in estimator.transformer_list)
    for name in ("best_estimator_", "estimator_", "_preprocessor", "regressor_"):
        inner = getattr(estimator, name, None)
        if isinstance(inner, BaseEstimator):
            yield inner
    members = getattr(estimator, "estimators_", None)
    # An ensemble of trees has hundreds of members, none of which has an encoder.
    if isinstance(members, list) and not hasattr(estimator, "max_features"):
        yield from (inner for inner in members if isinstance(inner, BaseEstimator))


def _find_in_column_transformer(
    column_transformer: ColumnTransformer, columns: Sequence[str]
) -> dict[str, list[Any]]:
    categories: dict[str, list[Any]] = {}
    indexes: Mapping[str, list[int]] = getattr(column_transformer, "_transformer_to_input_indices", {})
    for name, transformer, _ in getattr(column_transformer, "transformers_", []):
        # An example may have fewer columns than the estimator was fitted with.
        selected = [columns[index] for index in indexes.get(name, []) if index < len(columns)]
        if isinstance(transformer, BaseEstimator) and selected:
            categories.update(find_categories(transformer, selected))
    return categories


def _to_list(values: Any) -> list[Any]:
    converted: list[Any] = np.asarray(values).tolist()
    return converted


def describe(estimator: Any) -> str:
    """Name an estimator's class and its steps, for people: `Pipeline(StandardScaler, LogisticRegression)`."""
    name = type(estimator).__name__
    if isinstance(estimator, Pipeline):
        steps = [describe(step) for _, step in estimator.steps if isinstance(step, BaseEstimator)]
        return f"{name}({', '.join(steps)})"
    return name
