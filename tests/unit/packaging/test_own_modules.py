"""Models whose classes are in modules of the user's own, which the version brings along."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from headrace.errors import ModelError
from headrace_worker import notebook
from headrace_worker.models.loader import load
from headrace_worker.own_modules import OwnModules
from headrace_worker.packaging.own_modules import archive_modules
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

TABLE = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3})
TARGET = (TABLE["a"] > 9).to_numpy()
CAP = 1_000_000

STEPS = '''
from importlib import resources

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from mykit.numbers import FACTOR


class Scaled(TransformerMixin, BaseEstimator):
    """Multiplies by the factor of this version's module."""

    def fit(self, X, y=None):
        self.n_features_in_ = 2
        return self

    def transform(self, X):
        from mykit import late  # imported by the first prediction

        offset = float(resources.files("mykit").joinpath("offset.txt").read_text())
        return np.asarray(X) * FACTOR + late.ZERO + offset


class Model:
    """A model for `module:factory`."""

    def load(self, data):
        self.factor = FACTOR

    def predict(self, method, instances):
        return [self.factor for _ in instances]
'''


def write_kit(folder: Path, factor: int) -> Path:
    """Write a package with a constant of its own, a file beside it, and what should not be taken along."""
    kit = folder / "mykit"
    (kit / "__pycache__").mkdir(parents=True)
    (kit / "__init__.py").touch()
    (kit / "steps.py").write_text(STEPS)
    (kit / "numbers.py").write_text(f"FACTOR = {factor}\n")
    (kit / "late.py").write_text("ZERO = 0\n")
    (kit / "offset.txt").write_text("0.5")
    (kit / ".env").write_text("A=1")
    (kit / "__pycache__" / "steps.pyc").write_bytes(b"x")
    return kit


@pytest.fixture
def kits(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two packages of one name. No module of the name stays imported."""
    yield write_kit(tmp_path / "first", 2), write_kit(tmp_path / "second", 3)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mykit"]:
        del sys.modules[name]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fit(kit: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fit a pipeline with a class of the package, as a script beside it does."""
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(kit.parent))
        steps = importlib.import_module("mykit.steps")
        model = make_pipeline(steps.Scaled(), LogisticRegression()).fit(TABLE, TARGET)
        model.predict(TABLE)
    return model


def add_file(store: Store, kit: Path, monkeypatch: pytest.MonkeyPatch, suffix: str = "joblib") -> Any:
    """Save a model in the training process, and add the file where its module cannot be imported."""
    model, file = fit(kit, monkeypatch), kit.parent / f"model.{suffix}"
    (skops.io if suffix == "skops" else joblib).dump(model, file)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mykit"]:
        del sys.modules[name]
    example = kit.parent / "rows.json"
    example.write_bytes(msgspec.json.encode(TABLE.to_dict("records")))
    package(store, file, name="churn", example=example, code=[kit], trust_pickle=True)
    return model


@pytest.mark.parametrize("suffix", ["joblib", "skops"])
def test_two_versions_with_modules_of_one_name_predict_each_with_its_own(
    suffix: str, kits: tuple[Path, Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = [add_file(store, kit, monkeypatch, suffix) for kit in kits]
    versions = [load(store, "churn", number, trust_pickle=True) for number in "12"]
    rows = TABLE.to_dict("records")
    for _ in range(2):
        for original, version in zip(originals, versions, strict=True):
            with monkeypatch.context() as patched:
                patched.syspath_prepend(str(kits[originals.index(original)].parent))
                expected = original.predict_proba(TABLE).tolist()
            for name in [name for name in sys.modules if name.partition(".")[0] == "mykit"]:
                del sys.modules[name]
            assert version.predict("predict_proba", rows) == [pytest.approx(row) for row in expected]
            assert "mykit" not in sys.modules
    assert versions[0].predict("predict_proba", rows) != versions[1].predict("predict_proba", rows)


def test_the_manifest_and_the_store_hold_the_modules_under_their_digest(
    kits: tuple[Path, Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_file(store, kits[0], monkeypatch)
    manifest = store.verify("churn", "1", max_bytes=CAP)
    assert manifest.code is not None
    assert manifest.code.modules == ("mykit",)
    archive = store.path / "churn" / "1" / "code.zip"
    assert b".env" not in archive.read_bytes()
    assert b"pyc" not in archive.read_bytes()
    archive.write_bytes(archive_modules([kits[1]], max_bytes=CAP))
    for attempt in (
        lambda: store.verify("churn", "1", max_bytes=CAP),
        lambda: load(store, "churn", "1", trust_pickle=True),
    ):
        with pytest.raises(ModelError, match="another digest"):
            attempt()


def test_a_worker_and_the_command_need_trust_for_modules(
    kits: tuple[Path, Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_file(store, kits[0], monkeypatch, "skops")
    with pytest.raises(ModelError, match=r"brings the modules mykit, .*HEADRACE_TRUST_PICKLE"):
        load(store, "churn", "1")
    with pytest.raises(ModelError, match="--trust-pickle"):
        package(store, kits[0].parent / "model.skops", name="churn", code=[kits[0]])


def test_the_notebook_s_call_takes_modules_and_leaves_those_of_the_notebook_alone(
    kits: tuple[Path, Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_MODELS", str(store.path))
    monkeypatch.syspath_prepend(str(kits[0].parent))
    model = fit(kits[0], monkeypatch)
    imported = sys.modules["mykit.steps"]
    version = notebook.package(model, TABLE, name="churn", code=kits[0], trust_pickle=True)
    assert version.manifest.proof is not None
    assert version.manifest.code is not None
    assert "mykit" in repr(version)
    assert sys.modules["mykit.steps"] is imported


def test_a_factory_in_a_module_of_the_version_needs_no_installed_module(
    kits: tuple[Path, Path], store: Store, tmp_path: Path
) -> None:
    example = tmp_path / "rows.json"
    example.write_text("[[1, 2]]")
    package(store, "mykit.steps:Model", name="rule", example=example, code=[kits[1]], trust_pickle=True)
    with pytest.raises(ModelError, match="HEADRACE_TRUST_PICKLE"):
        load(store, "rule", "1", trust_modules="mykit")
    assert load(store, "rule", "1", trust_pickle=True).predict("predict", [[1, 2]]) == [3]


def test_a_model_without_its_module_is_refused_with_the_option_that_brings_it(
    kits: tuple[Path, Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_file(store, kits[0], monkeypatch)
    with pytest.raises(ModelError, match=r"needs the module 'mykit'.*--code"):
        package(
            store,
            kits[0].parent / "model.joblib",
            name="churn",
            example=kits[0].parent / "rows.json",
            trust_pickle=True,
        )


def test_equal_files_make_equal_archives(tmp_path: Path) -> None:
    first, second = write_kit(tmp_path / "a", 2), write_kit(tmp_path / "b", 2)
    os.utime(second / "steps.py", (1, 1))
    assert archive_modules([first], max_bytes=CAP) == archive_modules([second], max_bytes=CAP)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"x", "is no Python module"),
        ("my-kit.py", b"", "is no name of a Python module"),
        ("numpy.py", b"", "rename numpy"),
        ("json.py", b"", "rename json"),
        ("broken.py", b"def f(:\n", "line 1 is not Python"),
        ("null.py", b"x = 1\0", "is not Python"),
        ("large.py", b"#" * 2_000_000, "HEADRACE_MAX_MODEL_BYTES"),
        ("kit/fast.so", b"x", "is a compiled module"),
        ("kit/notes.txt", b"x", "has no .py file"),
    ],
)
def test_what_cannot_be_imported_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    module = file if file.parent == tmp_path else file.parent
    with pytest.raises(ModelError, match=message):
        archive_modules([module], max_bytes=CAP)


def test_a_module_that_is_named_twice_is_refused(kits: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="give each module once"):
        archive_modules(kits, max_bytes=CAP)


def test_a_damaged_archive_and_a_zip_bomb_are_refused(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_bytes(b"#" * 900_000)
    archive = archive_modules([tmp_path / "big.py"], max_bytes=CAP)
    with pytest.raises(ModelError, match="unpack to 900,000 bytes"):
        OwnModules(archive, "m", max_bytes=100_000)
    for data in (archive[:-30], b"PK\x03\x04", b"no zip"):
        with pytest.raises(ModelError, match="damaged archive"):
            OwnModules(data, "m", max_bytes=CAP)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and later, while threads run
def test_a_process_forked_while_another_thread_imports_has_none_of_the_modules(kits: tuple[Path, Path]) -> None:
    modules = OwnModules(archive_modules([kits[0]], max_bytes=CAP), "m", max_bytes=CAP)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with modules.importable():
            importlib.import_module("mykit.numbers")
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(30)
    finders = len(sys.meta_path)
    child = os.fork()
    if child == 0:
        is_clean = "mykit" not in sys.modules and len(sys.meta_path) == finders - 1
        with modules.importable():  # the lock of the other thread is not waited for
            has_kept = sys.modules["mykit.numbers"].FACTOR == 2
        os._exit(0 if is_clean and has_kept else 1)
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    thread.join()
    assert "mykit" not in sys.modules


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # as above
def test_a_fork_by_the_model_itself_keeps_its_modules(kits: tuple[Path, Path]) -> None:
    modules = OwnModules(archive_modules([kits[0]], max_bytes=CAP), "m", max_bytes=CAP)
    with modules.importable():
        child = os.fork()
        if child == 0:
            os._exit(importlib.import_module("mykit.numbers").FACTOR)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
