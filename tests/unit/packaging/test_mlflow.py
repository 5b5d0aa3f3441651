"""MLflow model folders, written by hand in the documented form that MLflow 3 writes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from headrace.catalog.contract import Array, Feature, Named
from headrace.errors import ModelError
from headrace_worker.models.loader import load
from headrace_worker.packaging.mlflow import read_mlflow_model
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

#: An MLmodel file with the order of entries and the line breaks that MLflow writes.
DESCRIPTION = """\
artifact_path: model
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict
    python_version: 3.11.7
  sklearn:
    code: null
    pickled_model: {file}
    serialization_format: cloudpickle
    sklearn_version: 1.9.1
mlflow_version: 3.17.2
model_uuid: c2e5066d129c4c6aa24afbdd9d22e040
saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
  type: dataframe
signature:
  inputs: '[{{"type": "double", "name": "age", "required": true}}, {{"type": "long",
    "name": "visits", "required": true}}, {{"type": "string", "name": "plan", "required":
    false}}]'
  outputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "int64", "shape": [-1]}}}}]'
  params: null
utc_time_created: '2026-11-23 01:02:16.933072'
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a folder as `mlflow.sklearn.save_model` does, with a signature and an input example."""
    table = pd.DataFrame(
        {"age": [20.0, 30.0, 40.0, 50.0] * 5, "visits": [1, 2, 3, 4] * 5, "plan": ["a", "b", "a", "b"] * 5}
    )
    columns = make_column_transformer(
        (StandardScaler(), ["age", "visits"]), (OneHotEncoder(handle_unknown="ignore"), ["plan"])
    )
    estimator = make_pipeline(columns, LogisticRegression()).fit(table, [0, 1] * 10)
    folder = tmp_path / "churn"
    folder.mkdir()
    (folder / "model.pkl").write_bytes(pickle.dumps(estimator))
    skops.io.dump(estimator, folder / "model.skops")
    (folder / "MLmodel").write_text(DESCRIPTION.format(file="model.pkl"))
    (folder / "input_example.json").write_text(
        json.dumps({"columns": ["age", "visits", "plan"], "data": [[20.0, 1, "a"], [30.0, 2, "b"]]})
    )
    return folder


def _add(folder: Path, **options: Any) -> Any:
    return package(Store(folder.parent / "store"), folder, name="churn", **options)


def test_the_signature_becomes_the_contract_and_the_folder_s_example_is_used(folder: Path) -> None:
    manifest = _add(folder, trust_pickle=True)
    assert manifest.contract.input == Named(
        features=(
            Feature(name="age", kind="number"),
            Feature(name="visits", kind="integer"),
            Feature(name="plan", kind="string", nullable=True),
        )
    )
    assert manifest.format == "skops"  # so workers need not trust a pickle
    loaded = load(Store(folder.parent / "store"), "churn", "1")
    assert loaded.predict("predict", [{"age": 30.0, "visits": 2, "plan": "b"}]) == [1]
    assert loaded.predict("predict", [{"age": 30.0, "visits": 2, "plan": None}]) in ([0], [1])


def test_a_skops_file_in_the_folder_needs_no_trust(folder: Path) -> None:
    (folder / "MLmodel").write_text(DESCRIPTION.format(file="model.skops"))
    assert _add(folder).methods[0] == "predict"


def test_a_pickle_in_the_folder_needs_trust(folder: Path) -> None:
    with pytest.raises(ModelError, match="--trust-pickle"):
        _add(folder)


def test_another_example_may_be_named_and_must_be_if_the_folder_has_none(folder: Path) -> None:
    (folder / "input_example.json").unlink()
    with pytest.raises(ModelError, match="give one with --example"):
        _add(folder, trust_pickle=True)
    example = folder.parent / "rows.json"
    example.write_text('[{"age": 25.5, "visits": 3, "plan": "a"}]')
    assert _add(folder, trust_pickle=True, example=example).example.instances[0]["age"] == 25.5


def test_an_example_that_does_not_fit_the_signature_is_refused(folder: Path) -> None:
    example = folder.parent / "rows.json"
    example.write_text('[{"age": 25.5, "visits": 1.5, "plan": "a"}]')
    with pytest.raises(ModelError, match="visits"):
        _add(folder, trust_pickle=True, example=example)


def test_without_a_signature_the_contract_is_inferred(folder: Path) -> None:
    description = DESCRIPTION.format(file="model.pkl")
    (folder / "MLmodel").write_text(description[: description.index("signature:")])
    schema = _add(folder, trust_pickle=True).contract.input
    assert [feature.kind for feature in schema.features] == ["number", "number", "string"]


def test_a_tensor_becomes_an_array_of_its_shape(folder: Path) -> None:
    inputs = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 30]}}]
    description = DESCRIPTION.format(file="model.pkl")
    signature = f"signature:\n  inputs: '{json.dumps(inputs)}'\n"
    (folder / "MLmodel").write_text(description[: description.index("signature:")] + signature)
    assert read_mlflow_model(folder).signature == Array(shape=(30,))


def test_a_datetime_of_the_signature_is_one_without_a_zone_in_nanoseconds(folder: Path) -> None:
    text = (folder / "MLmodel").read_text().replace('"double", "name": "age"', '"datetime", "name": "age"')
    (folder / "MLmodel").write_text(text)
    signature = read_mlflow_model(folder).signature
    assert isinstance(signature, Named)
    assert signature.features[0] == Feature(name="age", kind="datetime", dtype="datetime64[ns]")


def _write_description(tmp_path: Path, text: str) -> Path:
    (tmp_path / "model.pkl").write_bytes(b"")
    (tmp_path / "MLmodel").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("flavors: [", "is not YAML"),
        ("- a list", "describes no model"),
        ("flavors: {spacy: {data: model.spacy}}", "has the flavors spacy; sklearn, onnx, .*can be read"),
        ("{}", "has the flavors none"),
        ("flavors: {sklearn: {pickled_model: ../secret.pkl}}", "outside of the folder"),
        ("flavors: {sklearn: {pickled_model: /etc/passwd}}", "outside of the folder"),
        ("flavors: {sklearn: {pickled_model: other.pkl}}", "not in the folder"),
        ("flavors: !!python/object/apply:os.abort []", "is not YAML"),
        ("flavors: {sklearn: null}\nsignature: {inputs: '{'}", "signature"),
        (
            """flavors: {sklearn: null}\nsignature: {inputs: '[{"name": "a", "type": "binary"}]'}""",
            "of type binary",
        ),
        ("""flavors: {sklearn: null}\nsignature: {inputs: '[{"type": "double"}]'}""", "signature"),
    ],
)
def test_a_folder_that_cannot_be_read_is_reported_with_the_reason(text: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=error):
        read_mlflow_model(_write_description(tmp_path, text))


def test_a_folder_without_a_description_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no MLmodel"):
        read_mlflow_model(tmp_path)
