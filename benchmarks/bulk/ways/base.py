"""The frame of a way: it warms up, predicts each table, and prints the times as JSON."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bulk.processes import cpu_seconds

#: The column of the predictions that each way adds.
PREDICTION = "prediction"


class Task(NamedTuple):
    """A model, and the tables to predict with it."""

    model: str
    #: The fitted estimator, a joblib file, and the columns it takes.
    estimator: str
    features: list[str]
    #: Folders: of the tables, of a small table of the same form, and of the output.
    tables: str
    warm_up: str
    output: str

    def input_files(self) -> list[Path]:
        """Return the files to predict, in their order."""
        return sorted(file for file in Path(self.tables).iterdir() if file.is_file())

    def for_warm_up(self) -> Task:
        """Return the task with the small table and an output beside the real one."""
        return self._replace(tables=self.warm_up, output=f"{self.output}-warm-up")


Run = Callable[[Task], None]


@cache
def load(estimator: str) -> Any:
    """Return a fitted estimator, read once by each process."""
    import joblib

    return joblib.load(estimator)


def predict(task: Task, table: Any) -> Any:
    """Return the predictions of an Arrow table as an array. The frame has only the columns of the model."""
    return load(task.estimator).predict(table.select(task.features).to_pandas())


def with_predictions(task: Task, table: Any) -> Any:
    """Return an Arrow table with the column of its predictions."""
    import pyarrow

    return table.append_column(PREDICTION, pyarrow.array(predict(task, table)))


def main(
    open_engine: Callable[[int], AbstractContextManager[Run]], distributions: Sequence[str], settings: str
) -> None:
    """Run the tasks of `sys.argv[1]` in an engine with some processes; print JSON.

    `settings` describes the engine for the page.
    """
    config = json.loads(sys.argv[1])
    results = {}
    with open_engine(config["processes"]) as run:
        for fields in config["tasks"]:
            task = Task(**fields)
            _run_empty(run, task.for_warm_up())
            results[task.model] = _measure(run, task)
            shutil.rmtree(task.for_warm_up().output)
    versions = {name: version(name) for name in distributions}
    python = platform.python_version()
    print(json.dumps({"versions": versions, "python": python, "settings": settings, "results": results}))


def _measure(run: Run, task: Task) -> dict[str, float]:
    cpu, started = cpu_seconds(os.getpid()), time.perf_counter()
    _run_empty(run, task)
    return {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds(os.getpid()) - cpu}


def _run_empty(run: Run, task: Task) -> None:
    """Run a task into an empty folder."""
    shutil.rmtree(task.output, ignore_errors=True)
    Path(task.output).mkdir(parents=True)
    run(task)
