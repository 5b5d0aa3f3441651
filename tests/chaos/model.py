"""A model that performs the action in its rows (sleep, crash, allocate memory, loop), and records every run.

A row is `[number, do, amount]`: `number` identifies the job, `do` is one of the actions below, and the meaning of
`amount` depends on it. The prediction is twice the number, so the prediction of another job is recognised.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from headrace_worker.manifest import Limits
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

#: The name of the model, and of a second one whose jobs never share a batch.
MODEL, SINGLE_MODEL = "chaos", "alone"

#: The actions. The amount is seconds for `SLEEP`, and bytes for `EAT` and `FILL_DISK`.
SLEEP, RAISE, SEGFAULT, KILL, EXIT, LOOP, EAT, NO_MEMORY, FILL_DISK, REFUSE = range(10)

#: Names of actions for the report.
NAMES = {
    SEGFAULT: "segfault",
    KILL: "SIGKILL",
    EXIT: "os._exit",
    LOOP: "endless loop",
    EAT: "too much memory",
    NO_MEMORY: "MemoryError",
    FILL_DISK: "full disk",
}

#: Environment variables: the file of recorded runs, and the folder that `FILL_DISK` fills.
RUNS_VARIABLE, SCRATCH_VARIABLE = "CHAOS_RUNS", "CHAOS_SCRATCH"


class ScriptedEstimator(RegressorMixin, BaseEstimator):
    """The estimator of the model."""

    def fit(self, rows: Any, _: Any = None) -> ScriptedEstimator:
        self.n_features_in_ = len(rows[0])
        return self

    def predict(self, rows: Any) -> Any:
        return np.array(predict_rows(np.asarray(rows, dtype=float).tolist()))


def predict_rows(rows: list[list[float]]) -> list[float]:
    """Record the run, perform the actions, and return the predictions. Stock Celery's task calls it too."""
    _record_run(rows)
    for _, do, amount in rows:
        _perform(int(do), amount)
    return [2 * number for number, _, _ in rows]


def _record_run(rows: list[list[float]]) -> None:
    # A single write to a file opened for appending: runs of several processes do not mix, and a kill loses none.
    # The time is monotonic, because a scenario shifts the wall clock.
    line = f"{os.getpid()} {time.monotonic()} {' '.join(str(int(number)) for number, _, _ in rows)}\n"
    file = os.open(os.environ.get(RUNS_VARIABLE, os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def _perform(do: int, amount: float) -> None:
    if do == SLEEP:
        time.sleep(amount)
    elif do == RAISE:
        raise ValueError("an error on request")
    elif do == SEGFAULT:
        ctypes.string_at(0)
    elif do == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    elif do == EXIT:
        os._exit(3)
    elif do == LOOP:
        while True:
            pass
    elif do == EAT:
        bytearray(int(amount))
    elif do == NO_MEMORY:
        raise MemoryError("no memory, on request")
    elif do == FILL_DISK:
        with (Path(os.environ[SCRATCH_VARIABLE]) / "scratch").open("wb") as file:
            for _ in range(int(amount) // 65536):
                file.write(bytes(65536))
    elif do == REFUSE:
        raise ConnectionError("no connection, on request")


def add_models(folder: Path, *, rows: int = 32, **limits: Any) -> Path:
    """Package both models into a store in the folder, and return its path. `rows` bounds a batch of the first."""
    file, example = folder / "scripted.joblib", folder / "example.json"
    joblib.dump(ScriptedEstimator().fit([[0.0, 0.0, 0.0]]), file)
    example.write_text("[[0, 0, 0]]")
    store = Store(folder / "models")
    for name, max_instances in ((MODEL, rows), (SINGLE_MODEL, 1)):
        model_limits = Limits(max_batch_instances=max_instances, **limits)
        package(store, file, name=name, example=example, trust_pickle=True, limits=model_limits)
    return store.path
