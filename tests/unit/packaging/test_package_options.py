"""Options of packaging, and models and examples that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN, KMeans
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from headrace.catalog.contract import Array
from headrace.errors import InvalidInput, ModelError
from headrace_worker.models.loader import load
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.packaged_models import Rule, add_model, assert_predicts_as

X, Y = make_classification(80, 6, n_informative=4, n_classes=3, random_state=0)
WORDS = np.array(["low", "middle", "high"])[Y]


def test_the_named_method_is_the_default(tmp_path: Path) -> None:
    manifest = add_model(
        tmp_path, RandomForestClassifier(10, random_state=0).fit(X, WORDS), X[:5].tolist(), method="predict_proba"
    )
    assert manifest.contract.method == "predict_proba"
    assert manifest.methods == ("predict_proba", "predict", "predict_log_proba")
    assert manifest.contract.methods["predict_proba"].classes == ("high", "low", "middle")


def test_a_method_the_estimator_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="SVC has no method 'predict_proba' that predicts; it has predict, decision_function"
    ):
        add_model(tmp_path, SVC().fit(X, WORDS), X[:5].tolist(), method="predict_proba")


def test_a_clusterer_that_cannot_predict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a DBSCAN, which is no model: it has none of the methods predict"):
        add_model(tmp_path, DBSCAN().fit(X), X[:5].tolist())


def test_an_estimator_that_was_never_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot predict the example: NotFittedError"):
        add_model(tmp_path, LogisticRegression(), X[:5].tolist())


def test_an_example_of_the_wrong_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="X has 5 features, but LogisticRegression is expecting 6"):
        add_model(tmp_path, LogisticRegression().fit(X, Y), X[:5, :5].tolist())


def test_an_example_that_misspells_a_feature_is_refused(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(pd.DataFrame({"age": X[:, 0], "weight": X[:, 1]}), Y)
    with pytest.raises(
        ModelError, match="has no 'weight', which the model was fitted with; did you mean its column 'wieght'"
    ):
        add_model(tmp_path, estimator, [{"age": 1, "wieght": 2}])
    with pytest.raises(ModelError, match="has 'target', which the model was not fitted with"):
        add_model(tmp_path, estimator, [{"age": 1, "weight": 2, "target": 3}])


def test_an_example_of_objects_that_differ_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"age": X[:, 0], "weight": X[:, 1]})
    for estimator in (LogisticRegression().fit(frame, Y), LogisticRegression().fit(X[:, :2], Y)):
        with pytest.raises(
            ModelError, match="instance 1 of the example has other features than the first: 'weight'"
        ):
            add_model(tmp_path, estimator, [{"age": 1, "weight": 2}, {"age": 1}])
    with pytest.raises(ModelError, match="mixes objects, lists and texts"):
        add_model(tmp_path, LogisticRegression().fit(X[:, :2], Y), [{"age": 1, "weight": 2}, [1, 2]])


@pytest.mark.parametrize("instances", [[[1, 2], [3]], [[1], [[2]]], [[], [1]], [1, [2]]])
def test_an_example_of_lists_that_differ_is_refused(instances: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the example's lists differ in length or depth"):
        add_model(tmp_path, LogisticRegression().fit(X[:, :2], Y), instances)


def test_a_corrected_contract_replaces_the_inferred_one(tmp_path: Path) -> None:
    estimator = RandomForestClassifier(5, random_state=0).fit(X, Y)
    inferred = add_model(tmp_path, estimator, X[:5].tolist())
    assert isinstance(inferred.contract.input, Array)
    assert inferred.contract.input.nullable
    shown = json.loads((tmp_path / "store/model/1/manifest.json").read_text())
    shown["contract"]["input"] = {"type": "array", "shape": [6]}
    (tmp_path / "contract.json").write_text(json.dumps(shown))
    corrected = add_model(tmp_path, estimator, X[:5].tolist(), contract=tmp_path / "contract.json")
    assert corrected.contract.input == Array(shape=(6,))
    assert corrected.contract.methods == inferred.contract.methods


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"input": {"type": "named"}}', '{"input": {"type": "tensor"}}', "[" * 9999]
)
def test_a_malformed_corrected_contract_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text(text)
    with pytest.raises(ModelError, match=r"contract.json cannot be used"):
        add_model(
            tmp_path,
            KMeans(3, n_init=1, random_state=0).fit(X),
            X[:5].tolist(),
            contract=tmp_path / "contract.json",
        )


def test_an_example_that_a_corrected_contract_refuses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text('{"input": {"type": "array", "shape": [6], "kind": "integer"}}')
    with pytest.raises(ModelError, match="the example does not fit the contract: instance 0"):
        add_model(
            tmp_path,
            KMeans(3, n_init=1, random_state=0).fit(X),
            X[:5].tolist(),
            contract=tmp_path / "contract.json",
        )


def test_a_pickle_is_read_only_if_it_is_trusted_and_then_stored_as_skops(tmp_path: Path) -> None:
    estimator = RandomForestClassifier(10, random_state=0).fit(X, WORDS)
    (tmp_path / "example.json").write_text(json.dumps(X[:5].tolist()))
    store, file = Store(tmp_path / "store"), tmp_path / "model.joblib"
    joblib.dump(estimator, file, compress=3)
    with pytest.raises(ModelError, match=r"model.joblib is a pickle.*--trust-pickle"):
        package(store, file, name="model", example=tmp_path / "example.json")
    manifest = package(store, file, name="model", example=tmp_path / "example.json", trust_pickle=True)
    assert manifest.format == "skops"
    assert_predicts_as(estimator, X, tmp_path, X.tolist())


def test_a_model_that_skops_cannot_store_stays_a_pickle(tmp_path: Path) -> None:
    estimator = make_pipeline(FunctionTransformer(np.gradient, kw_args={"axis": 1}), LogisticRegression()).fit(
        X, Y
    )
    (tmp_path / "example.json").write_text(json.dumps(X[:5].tolist()))
    store, file = Store(tmp_path / "store"), tmp_path / "model.pkl"
    joblib.dump(estimator, file)
    manifest = package(store, file, name="model", example=tmp_path / "example.json", trust_pickle=True)
    assert manifest.format == "joblib"
    with pytest.raises(ModelError, match=r"model@1 is stored as joblib.*HEADRACE_TRUST_PICKLE"):
        load(store, "model", "1")
    loaded = load(store, "model", "1", trust_pickle=True)
    assert loaded.predict("predict", X[:5].tolist()) == estimator.predict(X[:5]).tolist()


def test_a_name_that_cannot_be_a_queue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a model's name"):
        package(Store(tmp_path), tmp_path / "none.skops", name="../up", example=tmp_path / "none.json")


def test_an_object_with_predict_needs_no_base_class(tmp_path: Path) -> None:
    joblib.dump(Rule(), tmp_path / "rule.joblib")
    (tmp_path / "example.json").write_text(json.dumps([[0.5, 1.0], [2.0, 1.0]]))
    store = Store(tmp_path / "store")
    package(store, tmp_path / "rule.joblib", name="rule", example=tmp_path / "example.json", trust_pickle=True)
    loaded = load(store, "rule", "1", trust_pickle=True)
    assert loaded.predict("predict", [[0.5, 1.0], [2.0, 1.0]]) == [False, True]
