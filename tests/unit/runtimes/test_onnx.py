"""The runtime for ONNX Runtime: estimators converted by skl2onnx, and files from other tools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification, make_regression
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from headrace.catalog.contract import Array, Feature, Named, Text
from headrace.errors import InvalidInput, ModelError
from headrace_worker.models.loader import load
from headrace_worker.packaging.package import package
from headrace_worker.runtimes.onnx import OnnxRuntime, open_session, refuse_external_tensors
from headrace_worker.runtimes.onnx_inputs import infer_input
from headrace_worker.runtimes.predictions import to_predictions
from headrace_worker.store.store import Store
from tests.support.runtime_loading import load_runtime

X, Y = make_classification(200, 6, n_informative=4, n_classes=3, random_state=0)
R, T = make_regression(200, 6, random_state=0)
WORDS = np.array(["low", "middle", "high"])
ROWS = Array(shape=(6,))


def test_datetimes_are_rejected() -> None:
    schema = Named(features=(Feature(name="started", kind="datetime"),))
    assert OnnxRuntime.explain_rejection(LinearRegression(), schema) == "ONNX has no datetimes"


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression().fit(X, Y),
        LogisticRegression().fit(X, WORDS[Y]),
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
        GaussianNB().fit(X, Y),
        MLPClassifier((8,), solver="lbfgs", max_iter=2_000, random_state=0).fit(X, Y),
        LinearRegression().fit(R, T),
        Ridge().fit(R, T),
        GradientBoostingRegressor(n_estimators=10).fit(R, T),
        KMeans(3, n_init=1, random_state=0).fit(X),
        PCA(2).fit(X),
    ],
    ids=lambda estimator: str(estimator)[:40],
)
def test_predictions_equal_those_of_scikit_learn(estimator: Any) -> None:
    methods = [
        name
        for name in ("predict", "predict_proba", "decision_function", "transform")
        if hasattr(estimator, name) and not (name == "transform" and hasattr(estimator, "predict"))
    ]
    runtime = load_runtime(OnnxRuntime, estimator, ROWS, *methods)
    for method in methods:
        expected = getattr(estimator, method)(X)
        predictions = runtime.predict(method, X.tolist())
        if expected.dtype.kind == "f":
            assert np.allclose(predictions, expected, 1e-5, 1e-5)
        else:
            assert predictions == expected.tolist()


def test_a_linear_model_computes_with_64_bits() -> None:
    estimator = LinearRegression().fit(R, T)
    runtime = load_runtime(OnnxRuntime, estimator, ROWS)
    assert np.allclose(runtime.predict("predict", R.tolist()), estimator.predict(R), 1e-13, 1e-13)


def test_a_pipeline_with_named_columns_gets_each_by_its_name() -> None:
    table = pd.DataFrame({"size (cm)": X[:, 0], "plan": WORDS[Y]})
    estimator = make_pipeline(
        make_column_transformer(
            (StandardScaler(), ["size (cm)"]), (OneHotEncoder(handle_unknown="ignore"), ["plan"])
        ),
        LogisticRegression(),
    ).fit(table, Y)
    schema = Named(features=(Feature(name="size (cm)", kind="number"), Feature(name="plan", kind="string")))
    runtime = load_runtime(OnnxRuntime, estimator, schema)
    rows = [*table.to_dict("records"), {"size (cm)": 0.5, "plan": "never seen"}]
    expected = estimator.predict_proba(pd.DataFrame(rows))
    assert np.allclose(runtime.predict("predict_proba", rows), expected, 1e-9)
    with pytest.raises(InvalidInput, match="missing"):
        runtime.predict("predict", [{"size (cm)": 0.5, "plan": None}])


def test_a_failed_conversion_is_an_error_of_one_line() -> None:
    estimator = make_pipeline(FunctionTransformer(np.sqrt), LinearRegression()).fit(abs(R), T)
    with pytest.raises(ModelError, match="skl2onnx cannot convert it: ") as raised:
        OnnxRuntime.compile(estimator, ROWS)
    assert len(str(raised.value)) < 250


def test_images_are_rejected() -> None:
    assert "flat rows" in OnnxRuntime.explain_rejection(LinearRegression(), Array(shape=(4, 4)))


@pytest.mark.parametrize("data", [b"", b"hello", b"\x08\x07" * 50])
def test_bytes_that_are_not_a_model_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="no model ONNX Runtime can run"):
        open_session(data, "m.onnx")


def test_it_predicts_in_a_forked_process() -> None:
    estimator = LogisticRegression().fit(X, Y)
    runtime = load_runtime(OnnxRuntime, estimator, ROWS)
    rows = X.tolist() * 5
    expected = runtime.predict("predict", rows)
    child = os.fork()
    if child == 0:
        os._exit(0 if runtime.predict("predict", rows) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def _make_file(
    inputs: list[Any], nodes: list[Any], outputs: list[Any], constants: list[Any] | None = None
) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _value_info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _make_sum_file(shape: list[Any]) -> bytes:
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)]
    return _make_file([_value_info("x", shape)], nodes, [_value_info("y", [None, 1])], [axes])


def _load(data: bytes, instances: list[Any]) -> OnnxRuntime:
    session = open_session(data, "m.onnx")
    return OnnxRuntime(session, infer_input(session, instances, "m.onnx"))


def test_a_file_of_one_input_takes_lists_or_objects() -> None:
    data = _make_sum_file([None, 3])
    assert _load(data, [[1.0, 2.0, 3.0]]).predict("predict", [[1.0, 2.0, 3.0], [4, 5, 6]]) == [6.0, 15.0]
    rows = [{"a": 1.0, "b": 2.0, "c": 3.0}]
    assert _load(data, rows).predict("predict", rows) == [6.0]
    assert infer_input(open_session(data, "m"), rows, "m") == Named(
        features=tuple(Feature(name=name, kind="number") for name in "abc")
    )


def test_a_file_of_several_inputs_takes_objects() -> None:
    inputs = [_value_info("a", [None, 1]), _value_info("b", [None, 1], TensorProto.DOUBLE)]
    nodes = [
        helper.make_node("Cast", ["a"], ["c"], to=TensorProto.DOUBLE),
        helper.make_node("Sub", ["b", "c"], ["difference"]),
        helper.make_node("Add", ["b", "c"], ["total"]),
    ]
    kind = TensorProto.DOUBLE
    data = _make_file(
        inputs, nodes, [_value_info("difference", [None, 1], kind), _value_info("total", [None, 1], kind)]
    )
    runtime = _load(data, [{"b": 3.0, "a": 1.0}])
    assert runtime.predict("predict", [{"b": 3.0, "a": 1.0}]) == [2.0]
    assert runtime.predict("total", [{"b": 3.0, "a": 1.0}, {"b": 0.0, "a": 0.5}]) == [4.0, 0.5]
    with pytest.raises(ModelError, match="has no predict_proba"):
        runtime.predict("predict_proba", [{"b": 3.0, "a": 1.0}])


def test_a_file_of_texts_takes_texts() -> None:
    kind = TensorProto.STRING
    data = _make_file(
        [_value_info("x", [None], kind)],
        [helper.make_node("Identity", ["x"], ["y"])],
        [_value_info("y", [None], kind)],
    )
    runtime = _load(data, ["some words"])
    assert runtime.predict("predict", ["a b", "c"]) == ["a b", "c"]
    assert infer_input(open_session(data, "m"), ["some words"], "m") == Text()


@pytest.mark.parametrize(
    ("shape", "instances", "error"),
    [
        ([1, 3], [[1.0, 2.0, 3.0]], "no free first dimension"),
        ([None, 3], [[1.0, 2.0]], "rows of shape"),
        ([None, 3], [[[1.0, 2.0, 3.0]]], "rows of shape"),
        ([None, 3], [{"a": 1.0}], "holds 1 features"),
    ],
)
def test_a_file_that_does_not_fit_its_example_is_refused(
    shape: list[Any], instances: list[Any], error: str
) -> None:
    with pytest.raises(ModelError, match=error):
        _load(_make_sum_file(shape), instances)


def test_a_file_with_tensors_in_other_files_is_refused() -> None:
    external = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    external.ClearField("int64_data")
    external.data_location = TensorProto.EXTERNAL
    external.external_data.add(key="location", value="../secret")
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)
    graph = helper.make_graph(
        [node], "graph", [_value_info("x", [None, 3])], [_value_info("y", [None, 1])], [external]
    )
    data = helper.make_model(graph).SerializeToString()
    with pytest.raises(ModelError, match="in other files"):
        refuse_external_tensors(data, "m.onnx")
    refuse_external_tensors(_make_sum_file([None, 3]), "m.onnx")


def test_an_onnx_file_is_packaged_and_serves(tmp_path: Path) -> None:
    (tmp_path / "sum.onnx").write_bytes(_make_sum_file([None, 3]))
    (tmp_path / "example.json").write_text("[[1.0, 2.0, 3.0]]")
    store = Store(tmp_path / "store")
    manifest = package(store, tmp_path / "sum.onnx", name="sum", example=tmp_path / "example.json", runtime="auto")
    assert (manifest.runtime, manifest.format, manifest.compiled) == ("onnx", "onnx", None)
    assert manifest.contract.input == Array(shape=(3,))
    assert load(store, "sum", "1").predict("predict", [[4.0, 5.0, 6.0]]) == [15.0]
    with pytest.raises(ModelError, match="executed by the runtime onnx"):
        package(store, tmp_path / "sum.onnx", name="sum", example=tmp_path / "example.json", runtime="treelite")


def test_a_number_too_large_for_32_bits_is_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="32-bit"):
        _load(_make_sum_file([None, 1]), [[1.0]]).predict("predict", [[1e300]])


def test_objects_of_probabilities_become_lists_in_the_order_of_their_classes() -> None:
    from skl2onnx import to_onnx

    estimator = LogisticRegression().fit(X, Y)
    data = to_onnx(
        estimator, X[:1].astype(np.float32)
    ).SerializeToString()  # with the ZipMap that skl2onnx adds by default
    rows = X[:5].tolist()
    probabilities = _load(data, rows).predict("predict_proba", rows)
    assert np.allclose(probabilities, to_predictions(estimator.predict_proba(X[:5]), 5), 1e-6)
