"""treelite's predictions equal scikit-learn's for every ensemble that it supports."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from headrace.catalog.contract import Array, Feature, Named
from headrace.errors import InvalidInput, ModelError
from headrace_worker.runtimes.predictions import to_predictions
from headrace_worker.runtimes.treelite import TreeliteRuntime
from tests.support.runtime_loading import load_runtime

X, Y = make_classification(300, 6, n_informative=4, n_classes=3, random_state=0)
X2, Y2 = make_classification(300, 6, n_informative=4, random_state=1)
R, T = make_regression(300, 6, random_state=0)
X_WITH_GAPS = X.copy()
X_WITH_GAPS[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
WORDS = np.array(["low", "middle", "high"])
ROWS = Array(shape=(6,), nullable=True)

CLASSIFIERS: list[tuple[Any, Any, Any]] = [
    (RandomForestClassifier(20, random_state=0), X, Y),
    (RandomForestClassifier(20, random_state=0), X, WORDS[Y]),
    (RandomForestClassifier(20, random_state=0), X_WITH_GAPS, Y),
    (RandomForestClassifier(20, random_state=0), X2, Y2.astype(bool)),
    (ExtraTreesClassifier(20, random_state=0), X, Y),
    (ExtraTreesClassifier(20, random_state=0), X_WITH_GAPS, Y),
    (GradientBoostingClassifier(n_estimators=20), X, Y),
    (GradientBoostingClassifier(n_estimators=20), X2, Y2),
    (GradientBoostingClassifier(n_estimators=20, loss="exponential"), X2, Y2),
    (GradientBoostingClassifier(n_estimators=20, init="zero"), X2, Y2),
    (GradientBoostingClassifier(n_estimators=100, n_iter_no_change=2), X2, Y2),
    (HistGradientBoostingClassifier(max_iter=20), X, WORDS[Y]),
    (HistGradientBoostingClassifier(max_iter=20), X2, Y2),
    (HistGradientBoostingClassifier(max_iter=20), X_WITH_GAPS, Y),
]
REGRESSORS: list[tuple[Any, Any, Any]] = [
    (RandomForestRegressor(20, random_state=0), R, T),
    (RandomForestRegressor(20, criterion="poisson", random_state=0), R, abs(T) + 1),
    (ExtraTreesRegressor(20, random_state=0), X_WITH_GAPS, T),
    *((GradientBoostingRegressor(loss=loss, n_estimators=20), R, T) for loss in ("squared_error", "huber")),
    *(
        (HistGradientBoostingRegressor(loss=loss, max_iter=20), R, abs(T) + 1)
        for loss in ("squared_error", "absolute_error", "gamma", "poisson")
    ),
]


def _rows(table: Any) -> list[list[float | None]]:
    return [[None if np.isnan(value) else value for value in row] for row in table.tolist()]


@pytest.mark.parametrize(("estimator", "table", "classes"), CLASSIFIERS, ids=lambda value: str(value)[:60])
def test_a_classifier_predicts_the_same_classes_and_probabilities(
    estimator: Any, table: Any, classes: Any
) -> None:
    estimator.fit(table, classes)
    runtime = load_runtime(TreeliteRuntime, estimator, ROWS)
    rows = _rows(table)
    assert runtime.predict("predict", rows) == estimator.predict(table).tolist()
    for method in ("predict_proba", "decision_function"):
        if hasattr(estimator, method):
            assert np.allclose(runtime.predict(method, rows), getattr(estimator, method)(table), 1e-12, 1e-14)
    if hasattr(estimator, "predict_log_proba"):
        with np.errstate(divide="ignore"):
            expected = to_predictions(estimator.predict_log_proba(table), len(table))
        actual = runtime.predict("predict_log_proba", rows)
        is_null = [[value is None for value in row] for row in actual]
        assert is_null == [[value is None for value in row] for row in expected]


@pytest.mark.parametrize(("estimator", "table", "values"), REGRESSORS, ids=lambda value: str(value)[:60])
def test_a_regressor_predicts_the_same_values(estimator: Any, table: Any, values: Any) -> None:
    estimator.fit(table, values)
    runtime = load_runtime(TreeliteRuntime, estimator, ROWS)
    assert np.allclose(runtime.predict("predict", _rows(table)), estimator.predict(table), 1e-12, 1e-12)


def test_a_forest_predicts_the_same_bits() -> None:
    estimator = RandomForestClassifier(50, random_state=0).fit(X, Y)
    runtime = load_runtime(TreeliteRuntime, estimator, ROWS)
    assert runtime.predict("predict_proba", _rows(X)) == estimator.predict_proba(X).tolist()


def test_the_pipeline_steps_before_the_trees_are_run_by_scikit_learn() -> None:
    table = pd.DataFrame({"age": X[:, 0], "plan": WORDS[Y]})
    estimator = make_pipeline(
        make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(), ["plan"])),
        HistGradientBoostingClassifier(max_iter=5),
    ).fit(table, Y)
    schema = Named(features=(Feature(name="age", kind="number"), Feature(name="plan", kind="string")))
    runtime = load_runtime(TreeliteRuntime, estimator, schema)
    rows = table.to_dict("records")
    assert np.allclose(runtime.predict("predict_proba", rows), estimator.predict_proba(table), 1e-12)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (LogisticRegression().fit(X, Y), "does not support LogisticRegression"),
        (DecisionTreeClassifier().fit(X, Y), "does not support DecisionTreeClassifier"),
        (RandomForestRegressor(2).fit(R, np.column_stack([T, T])), "one output"),
        (
            HistGradientBoostingClassifier(categorical_features=[0], max_iter=2).fit(
                np.column_stack([Y, X[:, 1:]]), Y
            ),
            "categorical features",
        ),
    ],
)
def test_unsupported_estimators_are_rejected_with_the_reason(estimator: Any, reason: str) -> None:
    assert reason in TreeliteRuntime.explain_rejection(estimator, ROWS)


def test_trees_of_texts_are_rejected() -> None:
    estimator = RandomForestClassifier(2).fit(X[:, :1], Y)
    schema = Named(features=(Feature(name="plan", kind="string"),))
    assert "numbers only" in TreeliteRuntime.explain_rejection(estimator, schema)


def test_a_number_too_large_for_the_trees_is_invalid_input() -> None:
    runtime = load_runtime(TreeliteRuntime, RandomForestRegressor(2).fit(R, T), ROWS)
    with pytest.raises(InvalidInput, match="32-bit"):
        runtime.predict("predict", [[1e300, 0, 0, 0, 0, 0]])
    with pytest.raises(InvalidInput, match="64-bit"):
        runtime.predict("predict", [[10**400, 0, 0, 0, 0, 0]])


def test_damaged_bytes_are_refused() -> None:
    estimator = RandomForestRegressor(2).fit(R, T)
    good = TreeliteRuntime.compile(estimator, ROWS)
    line, _, trees = good.partition(b"\n")
    fewer = line.replace(b'"features":6', b'"features":2') + b"\n" + trees
    assert fewer != good
    for damaged in (b"", b"\n", line, line + b"\n", line + b"\n" + trees[: len(trees) // 2], trees, fewer):
        with pytest.raises(ModelError):
            load_runtime(TreeliteRuntime, estimator, ROWS, compiled=damaged)


def test_it_predicts_in_a_forked_process() -> None:
    estimator = RandomForestClassifier(50, random_state=0).fit(X, Y)
    runtime = load_runtime(TreeliteRuntime, estimator, ROWS)
    expected = runtime.predict("predict", _rows(X))
    child = os.fork()
    if child == 0:
        os._exit(0 if runtime.predict("predict", _rows(X)) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
