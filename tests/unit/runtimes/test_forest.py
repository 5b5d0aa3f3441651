"""The faster methods of forests return the same bits as scikit-learn's methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headrace.catalog.contract import Array, Text
from headrace_worker.runtimes.forest import build_forest_methods
from headrace_worker.runtimes.sklearn import SklearnRuntime

X, Y = make_classification(200, 6, n_informative=4, n_classes=3, random_state=0)
X_WITH_GAPS = X.copy()
X_WITH_GAPS[::7, 2] = np.nan
WORDS = np.array(["low", "middle", "high"])


@pytest.mark.parametrize(
    ("forest", "table", "targets"),
    [
        (RandomForestClassifier(20, random_state=0), X, Y),
        (RandomForestClassifier(20, random_state=0), X, WORDS[Y]),
        (RandomForestClassifier(20, random_state=0), X_WITH_GAPS, Y),
        (ExtraTreesClassifier(20, random_state=0), X, Y == 1),
        (RandomForestRegressor(20, random_state=0), X, X[:, 0]),
        (ExtraTreesRegressor(20, random_state=0), X_WITH_GAPS, X[:, 0]),
        (make_pipeline(StandardScaler(), "passthrough", RandomForestClassifier(20, random_state=0)), X, Y),
    ],
    ids=lambda value: str(value)[:40],
)
def test_fast_methods_return_the_same_bits(forest: Any, table: Any, targets: Any) -> None:
    forest.fit(table, targets)
    fast_methods = build_forest_methods(forest)
    assert "predict" in fast_methods
    for method, call in fast_methods.items():
        with np.errstate(divide="ignore"):
            actual, expected = call(table), getattr(forest, method)(table)
        assert actual.dtype == expected.dtype
        assert np.array_equal(actual, expected)


@pytest.mark.parametrize(
    "estimator",
    [
        GradientBoostingClassifier(n_estimators=2).fit(X, Y),
        RandomForestClassifier(2).fit(X, np.column_stack([Y, Y])),
        StandardScaler().fit(X),
    ],
)
def test_only_forests_of_one_output_have_fast_methods(estimator: BaseEstimator) -> None:
    assert build_forest_methods(estimator) == {}


def test_other_input_than_plain_rows_is_passed_to_scikit_learn() -> None:
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    predict_proba = build_forest_methods(forest)["predict_proba"]
    assert np.array_equal(predict_proba(sparse.csr_array(X)), forest.predict_proba(X))
    for rows, error in (
        (np.full((1, 6), 1e300), "too large for dtype"),
        (np.full((1, 6), np.inf), "infinity"),
        (X[:, :5], "expecting 6 features"),
    ):
        with np.errstate(over="ignore"), pytest.raises(ValueError, match=error):
            predict_proba(rows)


def test_a_forest_with_a_tree_of_more_features_has_no_fast_methods() -> None:
    forest = RandomForestClassifier(2).fit(X, Y)
    forest.estimators_[0].tree_ = RandomForestClassifier(1).fit(np.hstack([X, X]), Y).estimators_[0].tree_
    assert build_forest_methods(forest) == {}


def test_only_a_runtime_with_its_own_estimator_uses_fast_methods() -> None:
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    schema = Array(shape=(6,))
    calls: list[int] = []

    class Counted(RandomForestClassifier):
        def predict(self, data: Any) -> Any:
            calls.append(len(data))
            return super().predict(data)

    expected = forest.predict(X).tolist()
    vars(counted := Counted()).update(vars(forest))
    assert SklearnRuntime(counted, schema).predict("predict", X.tolist()) == expected
    assert calls == [200]
    assert SklearnRuntime(forest, schema, own=True).predict("predict", X.tolist()) == expected


def test_texts_reach_a_forest_through_its_pipeline() -> None:
    texts = ["cold wet rain", "warm dry sun", "rain and wind", "sun and sand"] * 5
    forest = make_pipeline(TfidfVectorizer(), RandomForestClassifier(5, random_state=0)).fit(texts, [0, 1] * 10)
    runtime = SklearnRuntime(forest, Text(), own=True)
    assert runtime.predict("predict_proba", texts) == forest.predict_proba(texts).tolist()


def test_a_frame_is_passed_to_a_forest_unchanged() -> None:
    table = pd.DataFrame(X, columns=list("abcdef"))
    forest = RandomForestClassifier(5, random_state=0).fit(table, Y)
    assert np.array_equal(build_forest_methods(forest)["predict_proba"](table), forest.predict_proba(table))
