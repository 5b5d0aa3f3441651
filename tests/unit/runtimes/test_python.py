"""The Python runtime: a module's factory, which runs only if the settings name the module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import ModelError, UnknownModel
from headrace_worker.models.loader import load
from headrace_worker.packaging.package import package
from headrace_worker.runtimes.python import PythonRuntime, create_model, is_factory, is_trusted
from headrace_worker.store.store import Store

MODULE = """
import json
from pathlib import Path

import numpy as np

class Weighted:
    methods = ("predict", "explain")

    def load(self, data):
        self.weights = json.loads(data)

    def predict(self, method, instances):
        Path(__file__).with_name("ran").touch()
        sums = [sum(self.weights[name] * instance[name] for name in self.weights) for instance in instances]
        return np.array(sums) if method == "predict" else [{"because": [value]} for value in sums]

class Short(Weighted):
    methods = ("predict",)

    def load(self, data):
        assert data == b""

    def predict(self, method, instances):
        return [1.0] * (len(instances) - 1)

def failing():
    raise RuntimeError("no GPU here")

class Mute:
    def load(self, data): ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "__init__.py").write_text("")
    (tmp_path / "acme" / "models.py").write_text(MODULE)
    (tmp_path / "weights.json").write_text('{"a": 2.0, "b": 1.0}')
    (tmp_path / "example.json").write_text('[{"a": 1.0, "b": 0.5}, {"a": 3.0, "b": 2.5}]')
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme"]:
        del sys.modules[name]


def _add(folder: Path, factory: str = "acme.models:Weighted", **options: Any) -> Any:
    options.setdefault("data", folder / "weights.json")
    return package(Store(folder / "store"), factory, name="weighted", example=folder / "example.json", **options)


def test_a_factory_is_packaged_with_its_data_and_predicts(folder: Path) -> None:
    manifest = _add(folder)
    assert (manifest.runtime, manifest.factory, manifest.format) == ("python", "acme.models:Weighted", "data")
    assert manifest.methods == ("predict", "explain")
    loaded = load(Store(folder / "store"), "weighted", "1", trust_modules="acme")
    assert loaded.predict("predict", [{"a": 1.0, "b": 1.0}]) == [3.0]
    assert loaded.predict("explain", [{"a": 1.0, "b": 1.0}]) == [{"because": [3.0]}]


def test_another_method_can_be_the_default(folder: Path) -> None:
    assert _add(folder, method="explain").contract.method == "explain"
    with pytest.raises(ModelError, match="has no method 'guess'; it has predict, explain"):
        _add(folder, method="guess")


def test_no_code_runs_of_a_module_that_the_settings_do_not_name(folder: Path) -> None:
    _add(folder)
    (folder / "ran").unlink(missing_ok=True)
    (folder / "acme" / "ran").unlink()
    for modules in ("", "acm", "acme.model", "other,acme.models.inner"):
        with pytest.raises(ModelError, match="HEADRACE_TRUST_MODULES"):
            load(Store(folder / "store"), "weighted", "1", trust_modules=modules)
    assert not (folder / "acme" / "ran").exists()


@pytest.mark.parametrize("modules", ["acme", "acme.models", "other, acme.models"])
def test_a_module_is_trusted_by_its_name_or_its_package(modules: str) -> None:
    assert is_trusted("acme.models:Weighted", modules)


def test_changed_data_is_not_loaded(folder: Path) -> None:
    _add(folder)
    (folder / "store/weighted/1/artifact.data").write_text('{"a": 9.0, "b": 1.0}')
    with pytest.raises(ModelError, match="digest"):
        load(Store(folder / "store"), "weighted", "1", trust_modules="acme")


@pytest.mark.parametrize(
    ("factory", "error"),
    [
        ("acme.models:failing", "RuntimeError: no GPU here"),
        ("acme.models:Nobody", "no attribute 'Nobody'"),
        ("acme.nothing:Weighted", "no module acme.nothing"),
        ("acme.models:Mute", "has no method `predict`"),
        ("acme.models:Weighted", "JSONDecodeError"),
        ("../acme:Weighted", "is no module:factory"),
    ],
)
def test_a_factory_that_returns_no_model_is_an_error(folder: Path, factory: str, error: str) -> None:
    with pytest.raises(ModelError, match=error):
        create_model(factory, b"")


def test_a_model_that_returns_too_few_predictions_is_not_packaged(folder: Path) -> None:
    with pytest.raises(ModelError, match="1 predictions for 2 instances"):
        _add(folder, "acme.models:Short", data=None)


def test_only_a_file_or_a_factory_can_be_packaged(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.skops"):
        _add(folder, str(folder / "nothing.skops"), data=None)
    with pytest.raises(ModelError, match="only a module:factory"):
        _add(folder, str(folder / "weights.json"))
    with pytest.raises(UnknownModel):
        Store(folder / "store").latest("weighted")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:b", True), ("a.b:c.d", True), ("a", False), ("a:b()", False), ("C:\\model.skops", False), ("a:", False)],
)
def test_a_factory_has_the_form_module_colon_name(text: str, expected: bool) -> None:
    assert is_factory(text) is expected


def test_arrays_and_lists_of_arrays_become_lists() -> None:
    class Model:
        def predict(self, method: str, instances: list[Any]) -> Any:
            outputs = {"array": np.array([1.0, np.nan]), "arrays": [np.eye(2), np.eye(2)]}
            return outputs[method]

    runtime = PythonRuntime(Model())
    assert runtime.predict("array", [1, 2]) == [1.0, None]
    assert runtime.predict("arrays", [1, 2]) == [[[1.0, 0.0], [0.0, 1.0]]] * 2


class _Columnar:
    def __init__(self, convert: Any) -> None:
        self._convert = convert

    def predict_table(self, method: str, batch: Any) -> Any:
        return self._convert(batch.column(0))


@pytest.mark.parametrize(
    "convert",
    [
        lambda column: column,
        lambda column: column.to_numpy(),
        lambda column: column.to_pylist(),
        lambda column: column.to_pandas(),
    ],
    ids=["Arrow", "numpy", "list", "pandas"],
)
def test_an_object_may_take_the_columns_of_a_table(convert: Any) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([0.5, float("nan"), 2.0])], names=["x"])
    assert PythonRuntime(_Columnar(convert)).predict_table("predict", batch).to_pylist() == [0.5, None, 2.0]


def test_an_object_that_returns_too_few_answers_for_a_table_is_refused() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([0.5, 1.5])], names=["x"])
    with pytest.raises(ModelError, match="1 predictions for 2 instances"):
        PythonRuntime(_Columnar(lambda column: column[:1])).predict_table("predict", batch)


def test_an_object_without_a_method_for_tables_takes_rows() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([0.5])], names=["x"])
    assert PythonRuntime(object()).predict_table("predict", batch) is None
