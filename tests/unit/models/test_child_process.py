"""A model that ends or blocks the process that loads it takes a child process, never this one."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator

from headrace.errors import ModelError
from headrace_worker.models import loader
from headrace_worker.models.child_process import run_in_child
from headrace_worker.models.registry import Registry
from headrace_worker.packaging.package import package
from headrace_worker.packaging.table import read_table
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.store import Store

ROWS = np.arange(6.0).reshape(3, 2)
_LOADED_BY: list[int] = []


def crash() -> None:
    faulthandler.disable()  # pytest's would write a traceback into the output of the tests
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    time.sleep(600)


class _Model(BaseEstimator):
    """Crashes or hangs where `fault` says, in any process but that of the test."""

    def __init__(self, fault: str = "", test_pid: int = 0) -> None:
        self.fault, self.test_pid = fault, test_pid

    def fit(self, rows: Any) -> Self:
        self.n_features_in_ = rows.shape[1]
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.loaded_by_ = os.getpid()
        self._meet("load")

    def predict(self, rows: Any) -> Any:
        if os.getpid() != getattr(self, "loaded_by_", os.getpid()):
            self._meet("fork")
        return np.asarray(rows)[:, 0]

    def _meet(self, moment: str) -> None:
        if os.getpid() != self.test_pid and self.fault.endswith(moment):
            (crash if self.fault.startswith("crash") else hang)()


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(loader, "LOAD_SECONDS", 8.0 if "hang" in request.node.name else 60.0)
    monkeypatch.setattr(loader, "_EXAMPLE_SECONDS", 5.0)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (crash, "ended by SIGSEGV: the file is damaged or forged"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended by SIGKILL: .* too much memory"),
        (lambda: os._exit(3), "ended by its own exit with 3"),
        (hang, "did not finish in 0.5 seconds"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: run_in_child(hang, seconds=0.2, doing="the inner step ran"), "the inner step ran"),
    ],
)
def test_the_end_of_a_child_is_an_error_of_the_model(step: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        run_in_child(step, seconds=0.5 if step is hang else 30, doing="churn@3 was loaded")


def test_a_step_that_ends_well_changes_nothing_here() -> None:
    changed: list[int] = []
    run_in_child(lambda: changed.append(1), seconds=30, doing="churn@3 was loaded")
    assert changed == []


def test_a_child_of_a_child_that_is_ended_ends_too(tmp_path: Path) -> None:
    def note_and_hang() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        hang()

    with pytest.raises(ModelError):
        run_in_child(
            lambda: run_in_child(note_and_hang, seconds=60, doing="x"), seconds=3, doing="churn@3 was loaded"
        )
    process = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    deadline = time.monotonic() + 30
    while process.exists() and " Z " not in process.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("fault", ["crash at load", "hang at load", "crash after fork", "hang after fork"])
def test_a_version_that_fails_in_a_child_is_refused_and_the_former_one_serves(fault: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, version_fault in enumerate(["", fault], start=1):
        model = _Model("", os.getpid()).fit(ROWS)
        manifest = package(store, model, name="churn", example=read_table(ROWS), trust_pickle=True)
        assert manifest.version == str(number)
        _replace_artifact(store, manifest.version, _Model(version_fault, 0).fit(ROWS))
    registry = Registry(store, WorkerSettings(models=str(tmp_path), trust_pickle=True), prove=True)
    assert registry.preload() == {}
    assert registry.loaded_versions("churn") == ("1",)
    assert (
        "in a process of its own first" in registry.refused("churn")["2"]
        or "after it" in registry.refused("churn")["2"]
    )


# The limits of this process do not reach the one that reads the file: a file that hangs takes a minute.
@pytest.mark.parametrize("fault", ["crash at load", pytest.param("hang after fork", marks=pytest.mark.long)])
def test_such_a_file_is_refused_when_it_is_packaged(fault: str, tmp_path: Path) -> None:
    file = tmp_path / "model.joblib"
    joblib.dump(_Model(fault, 0).fit(ROWS), file)
    with pytest.raises(ModelError):
        package(Store(tmp_path / "store"), file, name="churn", example=read_table(ROWS), trust_pickle=True)
    assert Store(tmp_path / "store").models() == []


def _replace_artifact(store: Store, version: str, model: Any) -> None:
    """Write another artifact into a version, with a digest that fits."""
    import hashlib

    import msgspec

    from headrace_worker import manifest as manifests

    folder = store.path / "churn" / version
    manifest = store.read_manifest("churn", version)
    artifact = folder / manifest.artifact
    artifact.chmod(0o600)
    joblib.dump(model, artifact)
    data = artifact.read_bytes()
    changed = msgspec.structs.replace(manifest, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    (folder / "manifest.json").chmod(0o600)
    (folder / "manifest.json").write_bytes(manifests.encode(changed))
