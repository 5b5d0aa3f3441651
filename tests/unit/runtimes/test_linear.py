"""The faster methods of linear models and scalers return the same bits as scikit-learn's methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.datasets import make_classification
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    MultiTaskLasso,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    RidgeCV,
    SGDClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC

from headrace.catalog.contract import Array, Feature, Named, Text
from headrace_worker.runtimes.linear import build_linear_methods
from headrace_worker.runtimes.sklearn import SklearnRuntime

X, Y = make_classification(200, 6, n_informative=4, n_classes=3, random_state=0)
BINARY = Y == 1
WORDS = np.array(["low", "middle", "high"])[Y]
TARGETS = np.column_stack([X[:, 0], X[:, 1] ** 2])
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        (LogisticRegression(), Y),
        (LogisticRegression(), BINARY),
        (LogisticRegression(), WORDS),
        (LogisticRegression(fit_intercept=False), BINARY),
        (LogisticRegressionCV(cv=2, use_legacy_attributes=False, l1_ratios=(0,), scoring="accuracy"), Y),
        (RidgeClassifier(), Y),
        (RidgeClassifier(), BINARY),
        (LinearSVC(), WORDS),
        (SGDClassifier(loss="log_loss", random_state=0), Y),
        (SGDClassifier(random_state=0), BINARY),
        (LinearRegression(), X[:, 0]),
        (LinearRegression(), TARGETS),
        (Ridge(), X[:, :1]),
        (RidgeCV(), X[:, 0]),
        (Lasso(0.01), TARGETS),
        (LassoCV(cv=2), X[:, 0] ** 2),
        (ElasticNet(0.01), X[:, 0] ** 2),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize(
    "earlier",
    [
        (),
        (StandardScaler(),),
        (StandardScaler(with_mean=False), MinMaxScaler((-1, 2))),
        (StandardScaler(with_std=False), MinMaxScaler(clip=True)),
        (SimpleImputer(), "passthrough", RobustScaler()),
    ],
    ids=lambda value: "-".join(type(step).__name__ for step in value) or "alone",
)
def test_fast_methods_return_the_same_bits(model: Any, targets: Any, earlier: Any) -> None:
    estimator = make_pipeline(*earlier, model).fit(X, targets)
    rows = np.vstack([X, 1e6 * X])
    fast_methods = build_linear_methods(estimator)
    assert fast_methods.keys() == {name for name in METHODS if hasattr(estimator, name)}
    for name, method in fast_methods.items():
        for data in (rows, rows[:1], np.asfortranarray(rows)):
            with np.errstate(divide="ignore"):
                actual, expected = method(data), getattr(estimator, name)(data)
            assert actual.dtype == expected.dtype
            assert np.array_equal(actual, expected)


@pytest.fixture
def without_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scikit-learn raise where it would check its input."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("checked")

    for module in ("linear_model._base", "preprocessing._data"):
        monkeypatch.setattr(f"sklearn.{module}.validate_data", refuse)


def test_plain_numbers_are_not_checked_again(request: pytest.FixtureRequest) -> None:
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    expected = estimator.predict_proba(X)
    predict_proba = build_linear_methods(estimator)["predict_proba"]
    request.getfixturevalue(without_checks.__name__)
    assert np.array_equal(predict_proba(X), expected)


def test_the_input_is_not_changed() -> None:
    estimator = make_pipeline(StandardScaler(copy=False), MinMaxScaler(copy=False), Ridge()).fit(X.copy(), Y)
    rows = X.copy()
    build_linear_methods(estimator)["predict"](rows)
    assert np.array_equal(rows, X)


@pytest.mark.parametrize("earlier", [(), (StandardScaler(),), (MinMaxScaler(),)])
@pytest.mark.parametrize("last", [LogisticRegression(), Ridge()])
def test_bad_input_raises_the_errors_of_scikit_learn(earlier: Any, last: Any) -> None:
    predict = build_linear_methods(make_pipeline(*earlier, last).fit(X, Y))["predict"]
    for rows, error in (
        (np.full((1, 6), np.inf), "infinity"),
        (np.full((1, 6), np.nan), "NaN"),
        (X[:, :5], "expecting 6 features"),
        (X[0], "Expected 2D array"),
        (X[:0], "minimum of 1 is required"),
    ):
        with pytest.raises(ValueError, match=error):
            predict(rows)


@pytest.mark.parametrize(
    "data",
    [sparse.csr_array(X), X.astype(np.float32), X.astype(np.int64), X.astype(object), X.tolist()],
    ids=["sparse", "float32", "int64", "objects", "list"],
)
def test_other_input_than_plain_numbers_is_passed_to_scikit_learn(data: Any) -> None:
    for estimator in (LogisticRegression().fit(X, Y), make_pipeline(MinMaxScaler(), Ridge()).fit(X, Y)):
        if sparse.issparse(data) and not isinstance(estimator, LogisticRegression):
            continue  # this scaler refuses it
        name = "predict"
        assert np.array_equal(build_linear_methods(estimator)[name](data), getattr(estimator, name)(data))


def test_a_frame_is_passed_on_unchanged() -> None:
    table = pd.DataFrame(X, columns=list("abcdef"))
    estimator = make_pipeline(StandardScaler().set_output(transform="pandas"), LogisticRegression()).fit(table, Y)
    assert np.array_equal(build_linear_methods(estimator)["predict_proba"](table), estimator.predict_proba(table))


class Doubled(LogisticRegression):
    def decision_function(self, data: Any) -> Any:
        return 2 * super().decision_function(data)


@pytest.mark.parametrize(
    "estimator",
    [
        Doubled().fit(X, Y),
        PoissonRegressor().fit(X, Y),
        MultiTaskLasso().fit(X, TARGETS),
        SGDClassifier(random_state=0).fit(X, Y).sparsify(),
        make_pipeline(StandardScaler(), FunctionTransformer()).fit(X),
        StandardScaler().fit(X),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_estimators_have_no_fast_methods(estimator: BaseEstimator) -> None:
    assert build_linear_methods(estimator) == {}


def test_texts_reach_a_linear_model_through_its_pipeline() -> None:
    texts = ["cold wet rain", "warm dry sun", "rain and wind", "sun and sand"] * 5
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [0, 1] * 10)
    runtime = SklearnRuntime(model, Text(), own=True)
    assert runtime.predict("predict_proba", texts) == model.predict_proba(texts).tolist()


def test_a_runtime_uses_the_fast_methods_of_its_own_estimator_only(request: pytest.FixtureRequest) -> None:
    features = tuple(Feature(name=name, kind="number") for name in "abcdef")
    table = pd.DataFrame(X, columns=list("abcdef"))
    model = LogisticRegression().fit(table, Y)
    expected, instances = model.predict_proba(table).tolist(), table.to_dict("records")
    array_model = LogisticRegression().fit(X, Y)
    request.getfixturevalue(without_checks.__name__)
    with pytest.raises(AssertionError, match="checked"):
        SklearnRuntime(model, Named(features=features)).predict("predict_proba", instances)
    own = SklearnRuntime(model, Named(features=features), own=True)
    assert own.predict("predict_proba", instances) == expected
    array = SklearnRuntime(array_model, Array(shape=(6,)), own=True)
    assert array.predict("predict_proba", X.tolist()) == expected
