"""Look inside a fitted estimator: the estimators it is made of, and the categories its encoders know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline


def iter_estimators(estimator: Any) -> Iterator[Any]:
    """The estimator and every estimator within it, each once, fitted ones and templates alike."""
    seen: set[int] = set()
    waiting = [estimator]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        if isinstance(value, BaseEstimator):
            seen.add(id(value))
            yield value
            waiting.extend(vars(value).values())
        elif isinstance(value, Mapping):
            seen.add(id(value))
            waiting.extend(value.values())
        elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
            seen.add(id(value))
            waiting.extend(item for item in value if not isinstance(item, str | int | float))


def split_pipeline(estimator: Any) -> tuple[Callable[[Any], Any], Any]:
    """What the steps of a pipeline before its last one make of the input, and the last one, which predicts.

    An estimator that is no pipeline is its own last step.
    """
    before: list[Any] = []
    while type(estimator) is Pipeline:  # others may do more than run their steps
        *earlier, (_, estimator) = estimator.steps
        before += [step for _, step in earlier if step not in (None, "passthrough")]

    def transformed(taken: Any) -> Any:
        for step in before:
            taken = step.transform(taken)
        return taken

    return transformed, estimator


def find_categories(estimator: Any, columns: Sequence[str]) -> dict[str, list[Any]]:
    """The categories that encoders know, by the input column they encode, missing values included.

    Follows columns as long as they can be followed by place: through ColumnTransformer, FeatureUnion, meta
    estimators, and steps that give as many columns as they take, such as an imputer.
    """
    if isinstance(estimator, ColumnTransformer):
        return _of_transformers(estimator, columns)
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps:
            if found := find_categories(step, columns):
                return found
        return {}
    known = getattr(estimator, "categories_", None)
    if isinstance(known, list):
        return {} if len(known) != len(columns) else dict(zip(columns, map(_plain_list, known), strict=True))
    found = {}
    for inner in _inner(estimator):
        found.update(find_categories(inner, columns))
    return found


def _inner(estimator: Any) -> Iterator[Any]:
    """The fitted estimators that see the same columns as the estimator around them."""
    if isinstance(estimator, FeatureUnion):
        yield from (transformer for _, transformer in estimator.transformer_list)
    for name in ("best_estimator_", "estimator_", "_preprocessor", "regressor_"):
        inner = getattr(estimator, name, None)
        if isinstance(inner, BaseEstimator):
            yield inner
    several = getattr(estimator, "estimators_", None)
    # An ensemble of trees has hundreds, of one kind, with nothing in them to find.
    if isinstance(several, list) and not hasattr(estimator, "max_features"):
        yield from (inner for inner in several if isinstance(inner, BaseEstimator))


def _of_transformers(transformer: ColumnTransformer, columns: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    places: Mapping[str, list[int]] = getattr(transformer, "_transformer_to_input_indices", {})
    for name, inner, _ in getattr(transformer, "transformers_", []):
        # An example's columns may be fewer than those the estimator was fitted with.
        given = [columns[place] for place in places.get(name, []) if place < len(columns)]
        if isinstance(inner, BaseEstimator) and given:
            found.update(find_categories(inner, given))
    return found


def _plain_list(known: Any) -> list[Any]:
    listed: list[Any] = np.asarray(known).tolist()
    return listed


def describe(estimator: Any) -> str:
    """The classes an estimator is made of, for people: `Pipeline(StandardScaler, LogisticRegression)`."""
    name = type(estimator).__name__
    if isinstance(estimator, Pipeline):
        inner = [describe(step) for _, step in estimator.steps if isinstance(step, BaseEstimator)]
        return f"{name}({', '.join(inner)})"
    return name
