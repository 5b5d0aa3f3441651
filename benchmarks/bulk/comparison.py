"""Parquet to Parquet: a bulk run, in-process ways, Dask and Ray Data, in turns, with every prediction compared."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.bulk import models, outputs, tables
from benchmarks.bulk.models import MODELS
from benchmarks.bulk.site import Site
from benchmarks.bulk.sizes import Sizes
from benchmarks.bulk.ways.base import Task
from benchmarks.environments import EnvironmentFailed, interpreter

_ROOT = Path(__file__).parents[2]
#: Worker processes of every way but the script with pandas.
PROCESSES = 2
#: Seconds of all tasks of a way.
_TIMEOUT = 3600
#: The way whose predictions all others must give, and whose rate is the limit.
LIMIT = "pyarrow"
BULK = "headrace"


class Way(NamedTuple):
    """A way to predict a table without a queue."""

    title: str
    module: str
    #: The environment of its libraries; None is the environment of the suite.
    environment: str | None = None


WAYS = {
    LIMIT: Way("in process, pyarrow, 2 processes", "pyarrow_processes"),
    "pandas": Way("in process, a script with pandas", "pandas_script"),
    "dask": Way("Dask, map_partitions", "dask_partitions", "dask"),
    "ray": Way("Ray Data, map_batches", "ray_batches", "ray"),
}
TITLES = {BULK: "Headrace, bulk run", **{name: way.title for name, way in WAYS.items()}}


class WayFailed(Exception):
    """The reason why a way has no numbers."""


class Comparison:
    """The measurements of all ways; `interpreters` are those to use, by name of the environment."""

    def __init__(self, site: Site, sizes: Sizes, interpreters: Mapping[str, str]) -> None:
        self._site, self._sizes, self._interpreters = site, sizes, interpreters
        self._warm_up = {
            kind: self._write(kind, f"warm-up-{kind}", 2 * sizes.group_rows // 10) for kind in tables.FEATURES
        }
        self._tables = {name: self._write(model.kind, name, sizes.rows[name]) for name, model in MODELS.items()}
        self.left_out: dict[str, str] = {}
        self._about: dict[str, dict[str, Any]] = {}
        self._turns: dict[str, list[dict[str, dict[str, float]]]] = {}
        self._expected: dict[str, np.ndarray] = {}

    def _write(self, kind: str, name: str, rows: int) -> Path:
        sizes = self._sizes
        folder = self._site.inputs / name
        return tables.write_parquet(folder, kind, rows, files=sizes.files, group_rows=sizes.group_rows)

    def run(self, ways: list[str]) -> dict[str, Any]:
        """Measure every way once a round; return the results."""
        pythons = {name: self._python(name) for name in ways if name != BULK}
        for number in range(self._sizes.rounds):
            # The limit is first, because the others are compared with its predictions. The order of the others
            # changes with each round, so that drift of the machine affects all alike.
            others = [name for name in ways if name != LIMIT]
            for name in [LIMIT, *(others if number % 2 == 0 else others[::-1])]:
                if name in self.left_out:
                    continue
                print(f"round {number + 1} of {self._sizes.rounds}: {TITLES[name]}", file=sys.stderr)
                self._turn(name, pythons.get(name))
        return {
            "processes": PROCESSES,
            "rows": self._sizes.rows,
            "ways": [self._result(name) for name in ways if name in self._turns],
            "left_out": [
                {"name": name, "title": TITLES[name], "reason": reason} for name, reason in self.left_out.items()
            ],
        }

    def _python(self, name: str) -> str | None:
        environment = WAYS[name].environment
        if environment is None:
            return sys.executable
        if environment in self._interpreters:
            return self._interpreters[environment]
        try:
            return str(interpreter(environment))
        except EnvironmentFailed as reason:
            self.left_out[name] = str(reason)
            return None

    def _turn(self, name: str, python: str | None) -> None:
        try:
            turn = self._run_bulk() if python is None else self._run_way(name, python)
        except WayFailed as reason:
            # Its earlier turns go too: all medians are over the same number of turns.
            self._turns.pop(name, None)
            self.left_out[name] = str(reason)
            print(f"{TITLES[name]} is left out: {reason}", file=sys.stderr)
        else:
            self._turns.setdefault(name, []).append(turn)

    def _run_bulk(self) -> dict[str, dict[str, float]]:
        """Run each model once, on a worker all of whose pool processes work for runs."""
        turn = {}
        with self._site.worker(PROCESSES, bulk_processes=PROCESSES) as worker:
            for name, model in MODELS.items():
                self._site.run(worker, name, self._warm_up[model.kind].name)
                times, folder = self._site.run(worker, name, self._tables[name].name)
                outputs.check_equal(folder, self._expected[name])
                turn[name] = {
                    "seconds": times.seconds,
                    "cpu_seconds": times.cpu_seconds,
                    "redis_seconds": times.redis,
                    "bytes": outputs.count_bytes(folder),
                }
                shutil.rmtree(folder)
        return turn

    def _run_way(self, name: str, python: str) -> dict[str, dict[str, float]]:
        tasks = [self._task(model, name) for model in MODELS]
        answer = run_way(python, WAYS[name].module, tasks)
        turn: dict[str, dict[str, float]] = answer.pop("results")
        self._about[name] = answer
        for task in tasks:
            folder = Path(task.output)
            if name == LIMIT:
                self._expected.setdefault(task.model, outputs.read_predictions(folder))
            outputs.check_equal(folder, self._expected[task.model])
            turn[task.model]["bytes"] = outputs.count_bytes(folder)
            shutil.rmtree(folder)
        return turn

    def _task(self, model: str, way: str) -> Task:
        kind = MODELS[model].kind
        return Task(
            model=model,
            estimator=str(models.estimator_file(self._site.folder, model)),
            features=tables.FEATURES[kind],
            tables=str(self._tables[model]),
            warm_up=str(self._warm_up[kind]),
            output=str(self._site.folder / "ways" / f"{way}-{model}"),
        )

    def _result(self, name: str) -> dict[str, Any]:
        """Return the medians of a way, and the ratio of its rate to the limit in the same round."""
        turns, limit = self._turns[name], self._turns[LIMIT]
        row: dict[str, Any] = {"name": name, "title": TITLES[name], **self._about.get(name, {}), "turns": turns}
        row["models"] = {
            model: {
                "rows_per_second": statistics.median(rows / turn[model]["seconds"] for turn in turns),
                "cpu_us_per_row": statistics.median(1e6 * turn[model]["cpu_seconds"] / rows for turn in turns),
                "of_limit": statistics.median(
                    best[model]["seconds"] / turn[model]["seconds"]
                    for turn, best in zip(turns, limit, strict=True)
                ),
                "megabytes": turns[-1][model]["bytes"] / 1e6,
            }
            for model, rows in self._sizes.rows.items()
        }
        return row


def run_way(python: str, module: str, tasks: list[Task]) -> dict[str, Any]:
    """Run a way with an interpreter; return what it printed. Raises WayFailed."""
    config = json.dumps({"processes": PROCESSES, "tasks": [task._asdict() for task in tasks]})
    environ = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    try:
        completed = subprocess.run(
            [python, "-m", f"benchmarks.bulk.ways.{module}", config],
            cwd=_ROOT,
            env=os.environ | environ,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise WayFailed(f"{python} does not run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise WayFailed(f"it took more than {_TIMEOUT} s") from None
    if completed.returncode:
        lines = completed.stderr.strip().splitlines() or ["it failed without a message"]
        raise WayFailed(lines[-1][:200])
    answer: dict[str, Any] = json.loads(completed.stdout.strip().splitlines()[-1])
    return answer
