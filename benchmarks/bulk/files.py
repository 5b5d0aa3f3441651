"""CSV to CSV: the processor time of `headrace batch` beside two in-process ways."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.bulk import models, outputs, tables
from benchmarks.bulk.comparison import LIMIT, TITLES, WAYS, run_way
from benchmarks.bulk.processes import cpu_seconds
from benchmarks.bulk.site import Site
from benchmarks.bulk.sizes import Sizes
from benchmarks.bulk.ways.base import Task

_MODEL = "logistic"
_TIMEOUT = 1800
BATCH = "headrace batch"
#: The in-process ways; the first gives the predictions that the others must give.
_IN_PROCESS = (LIMIT, "pandas")


class Files:
    """The measurements with one CSV file."""

    def __init__(self, site: Site, sizes: Sizes) -> None:
        self._site, self._sizes = site, sizes
        self._folder = tables.write_csv(site.folder / "csv", "numbers", sizes.csv_rows)
        self._warm_up = tables.write_csv(site.folder / "csv-warm-up", "numbers", sizes.csv_rows // 10)

    def run(self) -> dict[str, Any]:
        """Measure every way once a round; return the processor time of each, in seconds, as medians."""
        seconds: dict[str, list[float]] = {name: [] for name in (*_IN_PROCESS, BATCH)}
        for number in range(self._sizes.rounds):
            print(f"CSV, round {number + 1} of {self._sizes.rounds}", file=sys.stderr)
            for name in _IN_PROCESS:
                seconds[name].append(self._run_way(name))
            seconds[BATCH].append(self._run_batch())
        return {
            "rows": self._sizes.csv_rows,
            "cpu_seconds": {name: statistics.median(values) for name, values in seconds.items()},
            "every_cpu_seconds": seconds,
            "titles": {BATCH: "`headrace batch`", **{name: TITLES[name] for name in _IN_PROCESS}},
        }

    def _run_way(self, name: str) -> float:
        task = Task(
            model=_MODEL,
            estimator=str(models.estimator_file(self._site.folder, _MODEL)),
            features=tables.NUMBERS,
            tables=str(self._folder),
            warm_up=str(self._warm_up),
            output=str(self._site.folder / "ways" / f"csv-{name}"),
        )
        cpu: float = run_way(sys.executable, WAYS[name].module, [task])["results"][_MODEL]["cpu_seconds"]
        if name == LIMIT:
            self._expected = outputs.read_predictions(Path(task.output))
        outputs.check_equal(Path(task.output), self._expected)
        return cpu

    def _run_batch(self) -> float:
        """Return the processor time of the command, with its start, of the worker and of Redis."""
        target = self._site.folder / "batch-out"
        target.mkdir()
        with self._site.worker(2) as worker:
            self._command(self._warm_up, target / "warm-up.csv")
            (target / "warm-up.csv").unlink()
            pool, redis = cpu_seconds(worker.process.pid), self._site.server.cpu_seconds()
            command = self._command(self._folder, target / "table.csv")
            others = cpu_seconds(worker.process.pid) - pool + self._site.server.cpu_seconds() - redis
        outputs.check_equal(target, self._expected)
        shutil.rmtree(target)
        return command + others

    def _command(self, folder: Path, target: Path) -> float:
        """Predict the file of a folder with the command; return its processor time."""
        command = [sys.executable, "-m", "headrace.cli", "batch", _MODEL, folder / "table.csv", "-o", target]
        before = _children_seconds()
        subprocess.run(
            list(map(str, command)),
            env={**os.environ, "HEADRACE_REDIS_URL": self._site.server.url},
            check=True,
            capture_output=True,
            timeout=_TIMEOUT,
        )
        return _children_seconds() - before


def _children_seconds() -> float:
    """Return the processor time of the children this process has waited for."""
    times = os.times()
    return times.children_user + times.children_system
