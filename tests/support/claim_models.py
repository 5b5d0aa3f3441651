"""A model that twists time and kills processes when its rows say so, and a worker that serves it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import redis
from sklearn.base import BaseEstimator, RegressorMixin

from headrace.connection.commands import execute, run
from headrace.inspection import queues
from headrace.wire.keys import Keys
from headrace_worker.local.stack import Child
from headrace_worker.manifest import Limits
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support import ROOT
from tests.support.misbehaving_models import MISDEEDS, number_of, spin
from tests.support.waiting import wait_until

#: What a row can tell the model to do, in its second place; the third says for how long.
NOTHING, KILL, SLEEP = 0, 1, 2
#: Compute without end, out of the reach of signals; the others are in `misdeeds`.
SPIN = number_of(spin)
#: Find something it needs away, until the moment in the third place (unix seconds).
AWAY = 100


class Doubling(RegressorMixin, BaseEstimator):
    """Twice the first value of each row. Writes the first values of every batch to the file $CALLS names."""

    def fit(self, rows: Any, _: Any = None) -> Doubling:
        self.n_features_in_ = len(rows[0])
        return self

    def predict(self, rows: Any) -> Any:
        table = np.asarray(rows, dtype=float)
        if calls := os.environ.get("CALLS"):
            with Path(calls).open("a") as file:
                file.write(" ".join(str(int(value)) for value in table[:, 0]) + "\n")
        for _, do, long in table:
            if do == SLEEP:
                time.sleep(long)
            if do == AWAY and time.time() < long:
                raise ConnectionResetError("the feature store is away")
            if do == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            if do in MISDEEDS:
                MISDEEDS[do]()
        return 2 * table[:, 0]


def add(folder: Path, name: str = "doubling", **limits: Any) -> Path:
    """Package the model in a store; returns the store's path."""
    joblib.dump(Doubling().fit([[0.0, 0.0, 0.0]]), folder / "doubling.joblib")
    (folder / "doubling.json").write_text("[[1, 0, 0]]")
    store = Store(folder / "models")
    file, example = folder / "doubling.joblib", folder / "doubling.json"
    package(store, file, name=name, example=example, trust_pickle=True, limits=Limits(**limits))
    return store.path


@contextlib.contextmanager
def serving(
    *options: str, url: str, models: Path, folder: Path, name: str = "worker", **more: str
) -> Iterator[Child]:
    """A Celery worker of ours with further options, ready; its process group is gone afterwards."""
    ready = folder / f"{name}.ready"
    ready.unlink(missing_ok=True)
    environ = {
        "HEADRACE_REDIS_URL": url,
        "HEADRACE_MODELS": str(models),
        "HEADRACE_READY_FILE": str(ready),
        "HEADRACE_TRUST_PICKLE": "true",
        "PYTHONPATH": str(ROOT),
        "CALLS": str(folder / "calls"),
        **more,
    }
    command = ["celery", "-A", "headrace_worker", "worker", "--concurrency", "2", "--hostname", f"{name}@test"]
    child = Child(name, [*command, *options], environ, folder / f"{name}.log")
    try:
        wait_until(lambda: child.check() or ready.exists(), 60, lambda: child.log.read_text()[-3000:])
        yield child
    finally:
        child.stop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)


def held(server: redis.Redis, prefix: str = "") -> int:
    """Claims under lease. One that stands, with nothing under it, is none."""
    return len(run(partial(execute, server), queues.read_leases(Keys(prefix))))
