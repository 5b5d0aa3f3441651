"""A model that answers in a thread, which does not survive a fork. For tests; `add` packages it.

A worker that serves it needs `SERVING` in its environment. What it does is recorded in the file $RECORD.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from pathlib import Path
from typing import Any

from billiard.process import current_process

from headrace_worker.manifest import Limits, Manifest
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store
from tests.support import ROOT

#: The environment in which a worker process can load the model.
SERVING = {"PYTHONPATH": str(ROOT), "HEADRACE_TRUST_MODULES": "tests.support.unforkable_models"}
#: Seconds to load it unless a test chooses others, so that readiness before that would be noticed.
LOAD_SECONDS = 0.5


class Threaded:
    """A model that predicts its factor times the instance, in a thread that it starts when it is loaded.

    `trouble` in its data is what it does in pool processes: "" for nothing; `refuse`, to raise an error in the
    first of them; `die`, to kill each that loads it.
    """

    def load(self, data: bytes) -> None:
        content = json.loads(data)
        self._factor, trouble = content["factor"], content["trouble"]
        process = current_process()
        if trouble == "refuse" and getattr(process, "index", None) == 0:
            raise RuntimeError("no memory left on the GPU")
        is_pool_process = hasattr(process, "index") and process._parent_pid == os.getppid()
        if trouble == "die" and is_pool_process:
            _record("die")
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(content["seconds"])
        self._requests: queue.Queue[float] = queue.Queue()
        self._answers: queue.Queue[float] = queue.Queue()
        threading.Thread(target=self._answer, daemon=True).start()
        self._loaded_in = os.getpid()
        _record("load")

    def _answer(self) -> None:
        while True:
            self._answers.put(self._factor * self._requests.get())

    def predict(self, method: str, instances: list[Any]) -> list[float]:
        _record("predict", self._loaded_in)
        predictions = []
        for (value,) in instances:
            self._requests.put(value)
            predictions.append(self._answers.get(timeout=2))
        return predictions


class SelfDeclared(Threaded):
    """The same model, which says itself that it must be loaded after the fork."""

    load_after_fork = True


def _record(*words: object) -> None:
    if path := os.environ.get("RECORD"):
        with Path(path).open("a") as file:
            file.write(" ".join(map(str, (os.getpid(), *words))) + "\n")


def read_record(path: Path, action: str) -> list[tuple[int, ...]]:
    """Return the process ids recorded for an action: `load`, `die`, or `predict` with that of the load."""
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(int(pid), *map(int, more)) for pid, word, *more in lines if word == action]


def add(
    store: Store,
    folder: Path,
    name: str = "threaded",
    *,
    factor: float = 2.0,
    trouble: str = "",
    seconds: float = LOAD_SECONDS,
    factory: str = "Threaded",
    load_after_fork: bool = True,
) -> Manifest:
    """Package the next version of the model, with files in `folder`."""
    data, example = folder / "threaded.json", folder / "rows.json"
    data.write_text(json.dumps({"factor": factor, "trouble": trouble, "seconds": seconds}))
    example.write_text("[[1.0], [2.0]]")
    return package(
        store,
        f"{__name__}:{factory}",
        name=name,
        data=data,
        example=example,
        limits=Limits(load_after_fork=load_after_fork),
    )
