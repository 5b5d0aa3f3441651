"""A forest's trees asked directly: the same bits as scikit-learn's own methods, in every case."""

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
from headrace_worker.runtimes.forest import build_fast_methods
from headrace_worker.runtimes.sklearn import SklearnRuntime

X, Y = make_classification(200, 6, n_informative=4, n_classes=3, random_state=0)
HOLES = X.copy()
HOLES[::7, 2] = np.nan
WORDS = np.array(["low", "middle", "high"])


@pytest.mark.parametrize(
    ("forest", "table", "answers"),
    [
        (RandomForestClassifier(20, random_state=0), X, Y),
        (RandomForestClassifier(20, random_state=0), X, WORDS[Y]),
        (RandomForestClassifier(20, random_state=0), HOLES, Y),
        (ExtraTreesClassifier(20, random_state=0), X, Y == 1),
        (RandomForestRegressor(20, random_state=0), X, X[:, 0]),
        (ExtraTreesRegressor(20, random_state=0), HOLES, X[:, 0]),
        (make_pipeline(StandardScaler(), "passthrough", RandomForestClassifier(20, random_state=0)), X, Y),
    ],
    ids=lambda value: str(value)[:40],
)
def test_it_gives_the_same_bits(forest: Any, table: Any, answers: Any) -> None:
    forest.fit(table, answers)
    quick = build_fast_methods(forest)
    assert "predict" in quick
    for method, call in quick.items():
        with np.errstate(divide="ignore"):
            got, expected = call(table), getattr(forest, method)(table)
        assert got.dtype == expected.dtype
        assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    "estimator",
    [
        GradientBoostingClassifier(n_estimators=2).fit(X, Y),
        RandomForestClassifier(2).fit(X, np.column_stack([Y, Y])),
        StandardScaler().fit(X),
    ],
)
def test_what_is_no_forest_of_one_output_is_left_alone(estimator: BaseEstimator) -> None:
    assert build_fast_methods(estimator) == {}


def test_what_is_no_plain_row_is_left_to_scikit_learn() -> None:
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    quick = build_fast_methods(forest)
    assert np.array_equal(quick["predict_proba"](sparse.csr_array(X)), forest.predict_proba(X))
    for bad, why in (
        (np.full((1, 6), 1e300), "too large for dtype"),
        (np.full((1, 6), np.inf), "infinity"),
        (X[:, :5], "expecting 6 features"),
    ):
        with np.errstate(over="ignore"), pytest.raises(ValueError, match=why):
            quick["predict_proba"](bad)


def test_a_forest_with_a_tree_of_more_features_than_it_has_is_left_alone() -> None:
    forest = RandomForestClassifier(2).fit(X, Y)
    forest.estimators_[0].tree_ = RandomForestClassifier(1).fit(np.hstack([X, X]), Y).estimators_[0].tree_
    assert build_fast_methods(forest) == {}


def test_a_worker_calls_it_and_a_person_who_packages_does_not() -> None:
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    given = Array(shape=(6,))
    calls: list[int] = []

    class Counted(RandomForestClassifier):
        def predict(self, taken: Any) -> Any:
            calls.append(len(taken))
            return super().predict(taken)

    expected = forest.predict(X).tolist()
    vars(counted := Counted()).update(vars(forest))
    assert SklearnRuntime(counted, given).predict("predict", X.tolist()) == expected
    assert calls == [200]
    assert SklearnRuntime(forest, given, own=True).predict("predict", X.tolist()) == expected


def test_texts_reach_a_forest_through_its_pipeline() -> None:
    texts = ["cold wet rain", "warm dry sun", "rain and wind", "sun and sand"] * 5
    forest = make_pipeline(TfidfVectorizer(), RandomForestClassifier(5, random_state=0)).fit(texts, [0, 1] * 10)
    runtime = SklearnRuntime(forest, Text(), own=True)
    assert runtime.predict("predict_proba", texts) == forest.predict_proba(texts).tolist()


def test_a_frame_reaches_a_forest_as_one() -> None:
    table = pd.DataFrame(X, columns=list("abcdef"))
    forest = RandomForestClassifier(5, random_state=0).fit(table, Y)
    assert np.array_equal(build_fast_methods(forest)["predict_proba"](table), forest.predict_proba(table))
