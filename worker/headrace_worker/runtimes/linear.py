"""Faster methods for linear models: an array of plain numbers is not checked by scikit-learn, which costs most.

Only the scores are computed here, by the same product. scikit-learn's own methods make probabilities and classes
of them, so the results are equal to the bit. Measured for one row of 30 numbers, the probabilities of a
LogisticRegression: 10 µs instead of 69; behind a StandardScaler, 13 µs instead of 169.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.linear_model import (
    ElasticNet,
    ElasticNetCV,
    Lasso,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    SGDClassifier,
)
from sklearn.svm import LinearSVC

from headrace_worker.runtimes.estimator_tree import split_pipeline
from headrace_worker.runtimes.scalers import is_plain_numbers

_CLASSIFIERS = {
    LinearSVC,
    LogisticRegression,
    LogisticRegressionCV,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
}
_REGRESSORS = {ElasticNet, ElasticNetCV, Lasso, LassoCV, LinearRegression, Ridge, RidgeCV}
_METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


def build_linear_methods(estimator: Any) -> dict[str, Callable[[Any], Any]]:
    """Return faster equivalents of an estimator's methods, by name.

    The result is empty unless the estimator is a linear model, or a pipeline that ends in one.
    """
    transform, model = split_pipeline(estimator)
    if type(model) not in _CLASSIFIERS | _REGRESSORS or type(getattr(model, "coef_", None)) is not np.ndarray:
        return {}
    fast = _skip_checks(model)
    methods = {name: getattr(fast, name) for name in _METHODS if hasattr(fast, name)}
    return {name: _behind(transform, method) for name, method in methods.items()}


def _behind(transform: Callable[[Any], Any], method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda data: method(transform(data))


def _skip_checks(model: Any) -> Any:
    """Return a copy of a linear model that computes the scores of plain numbers without checking them."""
    kind: Any = type(model)
    is_classifier = kind in _CLASSIFIERS
    name = "decision_function" if is_classifier else "_decision_function"
    coefficients, intercept, features = model.coef_.T, model.intercept_, model.n_features_in_
    checked = getattr(model, name)

    def compute_scores(_: Any, data: Any) -> Any:
        if not (is_plain_numbers(data, features) and np.isfinite(data).all()):
            return checked(data)
        scores = data @ coefficients + intercept
        return scores.reshape(-1) if is_classifier and scores.ndim == 2 and scores.shape[1] == 1 else scores

    fast = kind.__new__(type(kind.__name__, (kind,), {name: compute_scores}))
    vars(fast).update(vars(model))
    return fast
