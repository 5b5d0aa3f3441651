"""A model that does what its rows say: take its time, crash, eat memory, loop. It writes down every run.

A row is `[number, do, amount]`: the number tells jobs apart, `do` is one of the words below, and what the amount
is depends on it. The answer is twice the number, so an answer given to the wrong job is seen.
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

#: The name it is served under, and that of a twin whose jobs never share a batch.
MODEL, ALONE = "chaos", "alone"

#: What a row can tell the model to do. The amount: seconds, for `SLEEP`; bytes, for `EAT` and `FILL_DISK`.
SLEEP, RAISE, SEGFAULT, KILL, EXIT, LOOP, EAT, NO_MEMORY, FILL_DISK, REFUSE = range(10)

#: The same for people.
WORDS = {
    SEGFAULT: "segfault",
    KILL: "SIGKILL",
    EXIT: "os._exit",
    LOOP: "endless loop",
    EAT: "too much memory",
    NO_MEMORY: "MemoryError",
    FILL_DISK: "full disk",
}

#: Environment: the file runs are written to, and the folder `FILL_DISK` fills.
RUNS, SCRATCH = "CHAOS_RUNS", "CHAOS_SCRATCH"


class ObedientEstimator(RegressorMixin, BaseEstimator):
    """The estimator."""

    def fit(self, rows: Any, _: Any = None) -> ObedientEstimator:
        self.n_features_in_ = len(rows[0])
        return self

    def predict(self, rows: Any) -> Any:
        return np.array(work(np.asarray(rows, dtype=float).tolist()))


def work(rows: list[list[float]]) -> list[float]:
    """Write the run down, do as told, answer. What stock Celery's task runs too."""
    _write_down(rows)
    for _, do, amount in rows:
        _obey(int(do), amount)
    return [2 * number for number, _, _ in rows]


def _write_down(rows: list[list[float]]) -> None:
    # One write to a file opened to append: runs of several processes do not mix, and a kill does not lose it.
    # The clock is the machine's monotonic one, which no worker's wrong clock shifts.
    line = f"{os.getpid()} {time.monotonic()} {' '.join(str(int(number)) for number, _, _ in rows)}\n"
    file = os.open(os.environ.get(RUNS, os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def _obey(do: int, amount: float) -> None:
    if do == SLEEP:
        time.sleep(amount)
    elif do == RAISE:
        raise ValueError("told to fail")
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
        raise MemoryError("told to find no memory")
    elif do == FILL_DISK:
        with (Path(os.environ[SCRATCH]) / "scratch").open("wb") as file:
            for _ in range(int(amount) // 65536):
                file.write(bytes(65536))
    elif do == REFUSE:
        raise ConnectionError("told to find nobody")


def add_models(folder: Path, *, rows: int = 32, **limits: Any) -> Path:
    """Package both into a store in the folder, batches of so many rows; returns the store's path."""
    file, example = folder / "told.joblib", folder / "told.json"
    joblib.dump(ObedientEstimator().fit([[0.0, 0.0, 0.0]]), file)
    example.write_text("[[0, 0, 0]]")
    store = Store(folder / "models")
    for name, max_instances in ((MODEL, rows), (ALONE, 1)):
        model_limits = Limits(max_batch_instances=max_instances, **limits)
        package(store, file, name=name, example=example, trust_pickle=True, limits=model_limits)
    return store.path
