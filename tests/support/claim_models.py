"""A model that sleeps, raises or kills its process as its rows say, and a worker that serves it."""

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
from tests.support.misbehaving_models import ACTIONS, action_number, loop_in_c
from tests.support.waiting import wait_until

#: Actions of the model, in the second column of a row. The third column holds the seconds of SLEEP.
NOTHING, KILL, SLEEP = 0, 1, 2
#: Compute without end, out of the reach of signals. `misbehaving_models` has further actions.
LOOP_IN_C = action_number(loop_in_c)
#: Raise a ConnectionResetError until the time in the third column (unix seconds).
UNREACHABLE = 100
#: Wait while the file $CALLS.hold exists, at most the seconds of the third column.
HOLD = 101


class Doubling(RegressorMixin, BaseEstimator):
    """Predicts twice the first value of each row. Appends the first values of every batch to the file $CALLS."""

    def fit(self, rows: Any, _: Any = None) -> Doubling:
        self.n_features_in_ = len(rows[0])
        return self

    def predict(self, rows: Any) -> Any:
        table = np.asarray(rows, dtype=float)
        if calls := os.environ.get("CALLS"):
            with Path(calls).open("a") as file:
                file.write(" ".join(str(int(value)) for value in table[:, 0]) + "\n")
        for _, action, seconds in table:
            if action == SLEEP:
                time.sleep(seconds)
            if action == HOLD:
                wait_until(lambda: not Path(os.environ["CALLS"]).with_suffix(".hold").exists(), seconds)
            if action == UNREACHABLE and time.time() < seconds:
                raise ConnectionResetError("the feature store is unreachable")
            if action == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            if action in ACTIONS:
                ACTIONS[action]()
        return 2 * table[:, 0]


def add_model(folder: Path, name: str = "doubling", **limits: Any) -> Path:
    """Package a version of the model. Return the path of its store."""
    joblib.dump(Doubling().fit([[0.0, 0.0, 0.0]]), folder / "doubling.joblib")
    (folder / "doubling.json").write_text("[[1, 0, 0]]")
    store = Store(folder / "models")
    file, example = folder / "doubling.joblib", folder / "doubling.json"
    package(store, file, name=name, example=example, trust_pickle=True, limits=Limits(**limits))
    return store.path


@contextlib.contextmanager
def running_worker(
    *options: str, url: str, models: Path, folder: Path, name: str = "worker", **more: str
) -> Iterator[Child]:
    """Start a worker with further options, wait until it is ready, and kill its process group at the end."""
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


def count_claims(server: redis.Redis, prefix: str = "") -> int:
    """Return the number of claims under lease. A blocking claim without jobs is not counted."""
    return len(run(partial(execute, server), queues.read_leases(Keys(prefix))))
