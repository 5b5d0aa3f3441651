"""The classes of a contract name the values of a prediction, and only where each value is that of a class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skl2onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from headrace_worker.manifest import Manifest
from headrace_worker.models.loader import load
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support.packaged_models import add_model

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])


def add(folder: Path, estimator: Any, targets: Any = NAMES[Y]) -> Manifest:
    return add_model(folder, estimator.fit(X, targets), X[::10].tolist())


def test_probabilities_have_their_classes_and_a_prediction_has_none_of_its_own(tmp_path: Path):
    methods = add(tmp_path, LogisticRegression(max_iter=500)).contract.methods
    assert methods["predict_proba"].column_classes == tuple(NAMES)
    assert methods["decision_function"].column_classes == tuple(NAMES)
    assert methods["predict"].classes == tuple(NAMES)
    assert methods["predict"].column_classes is None


def test_columns_of_members_are_not_taken_for_classes(tmp_path: Path):
    members = [("knn", KNeighborsClassifier()), ("tree", DecisionTreeClassifier(max_depth=2)), ("nb", SVC())]
    methods = add(tmp_path, StackingClassifier(members, stack_method="predict")).contract.methods
    assert methods["transform"].shape == (3,)
    assert methods["transform"].classes is None
    assert methods["predict_proba"].column_classes == tuple(NAMES)


@pytest.mark.parametrize(("shape", "classes"), [("ovr", tuple(NAMES)), ("ovo", None)])
def test_three_columns_for_pairs_of_classes_are_not_taken_for_classes(tmp_path: Path, shape: str, classes: Any):
    methods = add(tmp_path, SVC(decision_function_shape=shape)).contract.methods
    assert methods["decision_function"].shape == (3,)
    assert methods["decision_function"].column_classes == classes


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_the_labels_of_a_model_of_several_labels_are_not_named_in_its_answer(tmp_path: Path):
    estimator = MLPClassifier(hidden_layer_sizes=(4,), max_iter=20, random_state=0)
    methods = add(tmp_path, estimator, np.eye(3, dtype=int)[Y]).contract.methods
    assert methods["predict"].shape == (3,)
    assert methods["predict"].column_classes is None


@pytest.mark.parametrize("labels", [["b9", "b10", "a"], [30, 4, 100]])
def test_the_probabilities_of_an_onnx_file_have_the_labels_of_its_zip_map(tmp_path: Path, labels: list[Any]):
    model = LogisticRegression(max_iter=500).fit(X, np.array(labels)[Y])
    file, example = tmp_path / "model.onnx", tmp_path / "example.json"
    file.write_bytes(skl2onnx.to_onnx(model, X[:1].astype(np.float32)).SerializeToString())
    example.write_text(json.dumps(X[::10].tolist()))
    store = Store(tmp_path / "store")
    methods = package(store, file, name="model", example=example).contract.methods
    assert methods["predict_proba"].column_classes == tuple(model.classes_.tolist())
    answers = load(store, "model", "1").predict("predict_proba", X[::10].tolist())
    assert np.allclose(answers, model.predict_proba(X[::10]), atol=1e-5)
