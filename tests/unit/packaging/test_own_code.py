"""Models made of functions and classes of a notebook or a script."""

from __future__ import annotations

import hashlib
import platform
import sys
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from headrace.errors import ModelError
from headrace_worker import notebook
from headrace_worker.manifest import Manifest
from headrace_worker.models.loader import load
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

TABLE = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3})
TARGET = (TABLE["a"] > 9).to_numpy()

#: The cells of a notebook. Python runs them in the module `__main__`.
CELLS = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

def halve(values):
    return np.asarray(values) / 2

class Centred(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.mean_ = np.asarray(X).mean(axis=0)
        return self

    def transform(self, X):
        return halve(np.asarray(X) - self.mean_)
"""


@pytest.fixture
def model() -> Any:
    """A pipeline with a class and a lambda of a notebook."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(CELLS, names)
    shift = FunctionTransformer(eval("lambda values: halve(values) + 1", names))
    return make_pipeline(names["Centred"](), shift, LogisticRegression()).fit(TABLE, TARGET)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def _add(store: Store, data: bytes, **options: Any) -> Manifest:
    file, example = store.path.parent / "model.pkl", store.path.parent / "rows.json"
    file.write_bytes(data)
    example.write_bytes(msgspec.json.encode(TABLE.to_dict("records")))
    return package(store, file, name="churn", example=example, **options)


def test_a_cloudpickle_is_stored_byte_for_byte_and_predicts_as_the_model(model: Any, store: Store) -> None:
    data = cloudpickle.dumps(model)
    manifest = _add(store, data, trust_pickle=True)
    assert (manifest.format, manifest.sha256) == ("joblib", hashlib.sha256(data).hexdigest())
    loaded = load(store, "churn", "1", trust_pickle=True)
    assert loaded.predict("predict", TABLE.to_dict("records")) == model.predict(TABLE).tolist()


def test_the_notebook_s_call_stores_its_lambdas_and_classes(
    model: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_MODELS", str(store.path))
    version = notebook.package(model, TABLE, name="churn", trust_pickle=True)
    assert version.manifest.format == "joblib"
    assert version.manifest.proof is not None
    assert version.manifest.libraries["cloudpickle"] == cloudpickle.__version__


def test_without_trust_the_error_says_what_to_do(
    model: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_MODELS", str(store.path))
    with pytest.raises(ModelError, match=r"__main__\.Centred.*not on the list.*trust_pickle=True.*--trust-pickle"):
        notebook.package(model, TABLE, name="churn")


def test_an_object_that_no_pickle_can_store_is_refused_in_a_sentence(
    model: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_MODELS", str(store.path))
    model.lock = threading.Lock()
    with pytest.raises(ModelError, match=r"a pickle cannot store this model .*lock.*without objects that only"):
        notebook.package(model, TABLE, name="churn", trust_pickle=True)


def test_functions_of_another_python_are_refused_before_they_are_read(model: Any, store: Store) -> None:
    manifest = _add(store, cloudpickle.dumps(model), trust_pickle=True)
    libraries = manifest.libraries | {"python": "3.9.1"}
    artifact = store.read_artifact("churn", "1", max_bytes=1_000_000)
    store.add(msgspec.structs.replace(manifest, libraries=libraries), artifact)
    with pytest.raises(ModelError, match=rf"code of Python 3\.9\.1.*{platform.python_version()} here cannot run"):
        load(store, "churn", "2", trust_pickle=True)


def test_a_pickle_that_names_a_class_of_a_script_says_how_to_save_it(store: Store) -> None:
    data = b"\x80\x04c__main__\nCentred\n."
    assert not hasattr(sys.modules["__main__"], "Centred")
    with pytest.raises(ModelError, match=r"defined in the script or notebook.*save it with cloudpickle\.dump"):
        _add(store, data, trust_pickle=True)


def test_the_manifest_lists_the_libraries_that_the_types_come_from(store: Store) -> None:
    import lightgbm

    booster = lightgbm.LGBMClassifier(n_estimators=2, min_child_samples=2, verbose=-1, n_jobs=1)
    pipeline = make_pipeline(FunctionTransformer(), booster).fit(TABLE, TARGET)
    manifest = _add(store, cloudpickle.dumps(pipeline), trust_pickle=True)
    assert manifest.libraries["lightgbm"] == lightgbm.__version__
    assert "scipy" not in manifest.libraries
