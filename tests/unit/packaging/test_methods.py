"""Methods besides predict, with constant arguments, give what the estimator itself gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.neighbors import KernelDensity, KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, MultiLabelBinarizer, OneHotEncoder, StandardScaler

from headrace.errors import ModelError
from headrace_worker.manifest import decode, encode
from headrace_worker.models.loader import LoadedModel, load, verify_and_load
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.store.store import Store

X, Y = load_iris(return_X_y=True)
TARGETS = X[:, 0] * 2 + X[:, 1]
ROWS = X[::7]


def add(folder: Path, estimator: Any, data: Any, **options: Any) -> LoadedModel:
    """Package an estimator with a typed table, whose own predictions it is compared with; load the version."""
    store = Store(folder / "store")
    package(store, estimator, name="model", example=read_table(data), **options)
    return load(store, "model", "1")


def test_a_standard_deviation_is_returned_with_each_mean(tmp_path: Path):
    model = make_pipeline(StandardScaler(), BayesianRidge()).fit(X, TARGETS)
    loaded = add(tmp_path, model, ROWS, arguments={"return_std": True})
    mean, deviation = model.predict(ROWS, return_std=True)
    predictions = loaded.predict("predict", ROWS.tolist())
    assert np.allclose(predictions, np.column_stack([mean, deviation]), rtol=1e-12)
    assert loaded.contract.methods["predict"].shape == (2,)
    assert loaded.manifest.arguments == {"return_std": True}
    assert loaded.manifest.proof is not None


def test_constant_arguments_belong_to_the_default_method_alone(tmp_path: Path):
    model = KNeighborsClassifier().fit(X, Y)
    loaded = add(tmp_path, model, ROWS, method="kneighbors", arguments={"n_neighbors": 2})
    distances, neighbours = model.kneighbors(ROWS, n_neighbors=2)
    assert loaded.contract.method == "kneighbors"
    answers = loaded.predict("kneighbors", ROWS.tolist())
    assert np.allclose([answer[0] for answer in answers], distances)
    assert [answer[1] for answer in answers] == neighbours.tolist()
    assert loaded.predict("predict", ROWS.tolist()) == model.predict(ROWS).tolist()
    assert loaded.contract.methods["kneighbors"].classes is None


def test_a_model_without_predict_answers_by_the_method_it_has(tmp_path: Path):
    for number, (model, method) in enumerate(
        [
            (NearestNeighbors(n_neighbors=3).fit(X), "kneighbors"),
            (PCA(2).fit(X), "transform"),
            (KernelDensity().fit(X), "score_samples"),
            (IsolationForest(n_estimators=5, random_state=0).fit(X), "predict"),
        ]
    ):
        loaded = add(tmp_path / str(number), model, ROWS)
        assert loaded.contract.method == method
        assert len(loaded.predict(method, ROWS.tolist())) == len(ROWS)


def test_the_leaves_of_a_forest_are_returned_by_apply_and_only_if_it_is_named(tmp_path: Path):
    model = RandomForestClassifier(n_estimators=3, random_state=0).fit(X, Y)
    loaded = add(tmp_path, model, ROWS, method="apply", runtime="auto")
    assert loaded.predict("apply", ROWS.tolist()) == model.apply(ROWS).tolist()
    assert loaded.contract.methods["apply"].classes is None  # three trees are not the three classes
    assert "apply" not in add(tmp_path / "unnamed", model, ROWS).contract.methods


def test_an_inverse_takes_the_outputs_of_a_transformer_that_was_fitted_on_names(tmp_path: Path):
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = PCA(2).fit(frame)
    reduced = model.transform(frame)[::7]
    loaded = add(tmp_path, model, reduced, method="inverse_transform")
    assert np.allclose(loaded.predict("inverse_transform", reduced.tolist()), model.inverse_transform(reduced))
    assert loaded.manifest.methods == ("inverse_transform",)
    assert loaded.manifest.estimator == "PCA"
    assert loaded.manifest.format == "skops"


def test_labels_are_the_answer_of_an_inverse(tmp_path: Path):
    encoder = LabelEncoder().fit(["gold", "basic", "silver"])
    loaded = add(tmp_path, encoder, np.array([0, 1, 2, 1]), method="inverse_transform")
    assert loaded.predict("inverse_transform", [2, 0]) == ["silver", "basic"]


def test_tuples_of_labels_of_different_lengths_are_lists(tmp_path: Path):
    encoder = MultiLabelBinarizer().fit([("a", "b"), ("c",)])
    rows = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]])
    loaded = add(tmp_path, encoder, rows, method="inverse_transform")
    assert loaded.predict("inverse_transform", rows.tolist()) == [["a", "b"], ["c"], []]


@pytest.mark.parametrize("runtime", ["sklearn", "auto"])
def test_a_sparse_row_is_its_indices_and_values(tmp_path: Path, runtime: str):
    texts = ["the cat sat", "the dog", "", "unheard"]
    model = TfidfVectorizer().fit(texts[:2])
    loaded = add(tmp_path, model, texts, runtime=runtime)
    dense = model.transform(texts).toarray()
    rows = loaded.predict("transform", texts)
    json.dumps(rows, allow_nan=False)
    for row, expected in zip(rows, dense, strict=True):
        assert row["indices"] == np.flatnonzero(expected).tolist()
        assert np.allclose(row["values"], expected[expected != 0])
    assert rows[2] == {"indices": [], "values": []}
    assert loaded.predict("transform", texts[1:2]) == rows[1:2]


def test_a_sparse_answer_that_differs_is_found_at_load(tmp_path: Path):
    encoder = OneHotEncoder().fit([["x"], ["y"]])
    loaded = add(tmp_path, encoder, [["x"], ["y"]])
    manifest, data = loaded.manifest, Store(tmp_path / "store").read_artifact("model", "1", max_bytes=10**6)
    for expected in (
        [{"indices": [1], "values": [1.0]}, {"indices": [1], "values": [1.0]}],
        [{"indices": [0], "values": [1.1]}, {"indices": [1], "values": [1.0]}],
    ):
        example = msgspec.structs.replace(manifest.example, expected={"transform": expected})
        forged = msgspec.structs.replace(manifest, example=example)
        with pytest.raises(ModelError, match="other predictions for its example"):
            verify_and_load(forged, data, max_bytes=10**6, trust_pickle=False)


def test_an_argument_that_the_method_does_not_have_is_refused(tmp_path: Path):
    model = LogisticRegression(max_iter=500).fit(X, Y)
    with pytest.raises(ModelError, match=r"the model cannot predict the example: TypeError: .*return_std"):
        add(tmp_path, model, ROWS, arguments={"return_std": True})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"return std": True}, "'return std' is no name of an argument"),
        ({"return_std": object()}, "the argument 'return_std' must be a value of JSON.* got a object"),
        ({"levels": np.array([1.0])}, "the argument 'levels' must be a value of JSON.* got a ndarray"),
    ],
)
def test_an_argument_that_a_manifest_cannot_hold_is_refused(tmp_path: Path, arguments: Any, message: str):
    with pytest.raises(ModelError, match=message):
        add(tmp_path, BayesianRidge().fit(X, TARGETS), ROWS, arguments=arguments)


def test_a_runtime_that_passes_no_arguments_is_refused_and_auto_takes_scikit_learn(tmp_path: Path):
    model = BayesianRidge().fit(X, TARGETS)
    with pytest.raises(ModelError, match="the runtime onnx passes no arguments"):
        add(tmp_path, model, ROWS, arguments={"return_std": True}, runtime="onnx")
    loaded = add(tmp_path, model, ROWS, arguments={"return_std": True}, runtime="auto")
    assert loaded.manifest.runtime == "sklearn"


def test_an_answer_that_depends_on_the_other_rows_is_refused(tmp_path: Path):
    model = GaussianProcessRegressor(optimizer=None).fit(X[::10], TARGETS[::10])
    with pytest.raises(ModelError, match="another answer alone"):
        add(tmp_path, model, ROWS[:5], arguments={"return_cov": True})


@pytest.mark.parametrize("method", ["fit", "set_params", "__reduce__", "get_params", "score", "partial_fit"])
def test_a_method_that_predicts_nothing_is_refused(tmp_path: Path, method: str):
    model = LogisticRegression(max_iter=500).fit(X, Y)
    with pytest.raises(ModelError, match=r"has no method .* that predicts; it has predict, predict_proba"):
        add(tmp_path, model, ROWS, method=method)


def test_a_forged_manifest_calls_no_method_that_predicts_nothing(tmp_path: Path):
    loaded = add(tmp_path, LogisticRegression(max_iter=500).fit(X, Y), ROWS)
    data = Store(tmp_path / "store").read_artifact("model", "1", max_bytes=10**6)
    forged = decode(encode(loaded.manifest).replace(b'"predict":', b'"set_params":'), "model@1")
    assert "set_params" in forged.methods
    with pytest.raises(ModelError, match=r"names the method .set_params., which predicts nothing"):
        verify_and_load(forged, data, max_bytes=10**6, trust_pickle=False)
