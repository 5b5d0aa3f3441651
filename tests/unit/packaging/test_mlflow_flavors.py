"""MLflow folders of other flavors than scikit-learn's, and with code, in the form that MLflow 3.17 writes."""

from __future__ import annotations

import json
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from headrace.catalog.contract import Feature, Named
from headrace.errors import ModelError
from headrace_worker.manifest import Manifest
from headrace_worker.models.loader import load
from headrace_worker.packaging.package import package
from headrace_worker.runtimes import pyfunc
from headrace_worker.store.store import Store
from tests.support.stored_versions import DATA, make_manifest

TABLE = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0) % 3})
TARGET = (TABLE["a"] > 9).astype(int)
CODE = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

class Half(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X) / 2
"""


def write_folder(folder: Path, flavors: str, kinds: tuple[str, str] = ("double", "double")) -> Path:
    """Write the description of a model with two columns, and its input example."""
    folder.mkdir(exist_ok=True)
    columns = [{"type": kind, "name": name, "required": True} for name, kind in zip("ab", kinds, strict=True)]
    (folder / "MLmodel").write_text(
        f"flavors:\n{flavors}"
        "  python_function:\n    loader_module: mlflow.any\n    python_version: 3.11.7\n"
        "mlflow_version: 3.17.2\n"
        "saved_input_example_info:\n  artifact_path: input_example.json\n  pandas_orient: split\n"
        f"signature:\n  inputs: '{json.dumps(columns)}'\n  outputs: null\n"
    )
    (folder / "input_example.json").write_text(json.dumps({"columns": ["a", "b"], "data": [[1, 2], [30, 1]]}))
    return folder


def add(folder: Path, **options: Any) -> Manifest:
    return package(Store(folder.parent / "store"), folder, name="model", **options)


def test_a_lightgbm_booster_needs_no_trust(tmp_path: Path) -> None:
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(TABLE, TARGET), 3)
    folder = write_folder(tmp_path / "m", "  lightgbm:\n    code: null\n    data: model.lgb\n")
    booster.save_model(folder / "model.lgb")
    assert add(folder).format == "lightgbm"
    loaded = load(Store(tmp_path / "store"), "model", "1")
    assert loaded.predict("predict", [{"a": 1.0, "b": 2.0}]) == booster.predict([[1.0, 2.0]]).tolist()


def test_a_lightgbm_estimator_that_mlflow_saved_by_skops_is_stored_as_lightgbm_s_own_file(tmp_path: Path) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(TABLE, TARGET)
    folder = write_folder(tmp_path / "m", "  lightgbm:\n    code: null\n    data: model.skops\n")
    skops.io.dump(model, folder / "model.skops")
    with pytest.raises(ModelError, match=r"lightgbm.*needs no trust"):
        add(folder)
    assert add(folder, trust_pickle=True).format == "lightgbm"
    loaded = load(Store(tmp_path / "store"), "model", "1")  # a worker needs no trust
    assert loaded.predict("predict", TABLE.to_dict("records")) == model.predict(TABLE).tolist()


@pytest.mark.parametrize("form", ["pickle", "skops"])
def test_the_folder_s_code_goes_into_the_version(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = "model.pkl" if form == "pickle" else "model.skops"
    folder = write_folder(tmp_path / "m", f"  sklearn:\n    code: code\n    pickled_model: {file}\n")
    kit = folder / "code" / "mlkit"
    kit.mkdir(parents=True)
    (kit / "__init__.py").touch()
    (kit / "steps.py").write_text(CODE)
    (folder / "code" / "readme.txt").touch()
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(folder / "code"))
        from mlkit.steps import Half  # type: ignore[import-not-found]  # written above

        model = make_pipeline(Half(), LogisticRegression()).fit(TABLE, TARGET)
        (folder / file).write_bytes(pickle.dumps(model) if form == "pickle" else skops.io.dumps(model))
    for name in ("mlkit", "mlkit.steps"):
        del sys.modules[name]
    manifest = add(folder, trust_pickle=True)
    assert manifest.code is not None
    assert manifest.code.modules == ("mlkit",)
    loaded = load(Store(tmp_path / "store"), "model", "1", trust_pickle=True)
    assert loaded.predict("predict", [{"a": 1.0, "b": 2.0}, {"a": 30.0, "b": 1.0}]) == [0, 1]


def test_code_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "  sklearn:\n    code: ../..\n    pickled_model: model.pkl\n")
    (folder / "model.pkl").write_bytes(pickle.dumps(LogisticRegression().fit(TABLE, TARGET)))
    with pytest.raises(ModelError, match="names a folder outside of it"):
        add(folder, trust_pickle=True)


def test_columns_have_the_types_of_the_signature(tmp_path: Path) -> None:
    table = TABLE.astype({"a": "int32", "b": "float32"})
    folder = write_folder(tmp_path / "m", "  sklearn:\n    pickled_model: model.skops\n", ("integer", "float"))
    skops.io.dump(LogisticRegression().fit(table, TARGET), folder / "model.skops")
    assert add(folder).contract.input == Named(
        features=(
            Feature(name="a", kind="integer", dtype="int32"),
            Feature(name="b", kind="number", dtype="float32"),
        )
    )


def test_another_flavor_is_left_to_mlflow_and_needs_trust_and_mlflow(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "  spacy:\n    code: null\n    data: model.spacy\n")
    with pytest.raises(ModelError, match=r"loaded by MLflow, which runs whatever code.*--trust-pickle"):
        add(folder)
    assert find_spec("mlflow") is None
    with pytest.raises(ModelError, match=r"mlflow is not installed here; pip install mlflow"):
        add(folder, trust_pickle=True)


def test_a_worker_needs_trust_for_what_mlflow_loads_whatever_modules_it_trusts(tmp_path: Path) -> None:
    import msgspec

    store = Store(tmp_path / "store")
    manifest = msgspec.structs.replace(make_manifest(), format="data", runtime="python", factory=pyfunc.FACTORY)
    store.add(manifest, DATA)
    with pytest.raises(ModelError, match=r"loaded by MLflow.*HEADRACE_TRUST_PICKLE"):
        load(store, "churn", "1", trust_modules="headrace_worker")
