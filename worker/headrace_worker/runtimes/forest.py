"""Faster methods for forests: the trees predict one after another, without scikit-learn's checks for each tree.

The sums are computed in the same order, so the results are equal to the bit. Measured with 100 trees: 0.4 ms for
one row instead of 15, 1 ms for 64 rows instead of 23, 8 ms for 1,024 rows instead of 37.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from headrace_worker.runtimes.estimator_tree import split_pipeline

_CLASSIFIERS = (RandomForestClassifier, ExtraTreesClassifier)
_REGRESSORS = (RandomForestRegressor, ExtraTreesRegressor)


def build_forest_methods(estimator: Any) -> dict[str, Callable[[Any], Any]]:
    """Return faster equivalents of an estimator's methods, by name.

    The result is empty unless the estimator is a forest, or a pipeline that ends in one.
    """
    transform, forest = split_pipeline(estimator)
    if type(forest) not in {*_CLASSIFIERS, *_REGRESSORS} or forest.n_outputs_ != 1:
        return {}
    trees = [tree.tree_ for tree in forest.estimators_]
    if any(tree.n_features != forest.n_features_in_ for tree in trees):
        return {}
    allows_nan = forest.__sklearn_tags__().input_tags.allow_nan

    def as_tree_input(data: Any) -> Any:
        """Convert data to the array that trees read. Return None for data that scikit-learn must handle."""
        if sparse.issparse(data):
            return None
        rows = np.asarray(data, dtype=np.float32, order="C")
        # A tree reads features by their index and does not check how many there are.
        if rows.ndim != 2 or rows.shape[1] != forest.n_features_in_:
            return None
        return rows if not (np.isinf(rows) if allows_nan else ~np.isfinite(rows)).any() else None

    def mean(rows: Any) -> Any:
        total = trees[0].predict(rows)
        for tree in trees[1:]:
            total += tree.predict(rows)
        total /= len(trees)
        return total

    def predict_proba(data: Any) -> Any:
        transformed = transform(data)
        rows = as_tree_input(transformed)
        return forest.predict_proba(transformed) if rows is None else mean(rows)

    def predict_values(data: Any) -> Any:
        transformed = transform(data)
        rows = as_tree_input(transformed)
        return forest.predict(transformed) if rows is None else mean(rows)[:, 0]

    if isinstance(forest, _REGRESSORS):
        return {"predict": predict_values}
    return {
        "predict": lambda data: forest.classes_.take(np.argmax(predict_proba(data), axis=1), axis=0),
        "predict_proba": predict_proba,
        "predict_log_proba": lambda data: np.log(predict_proba(data)),
    }
