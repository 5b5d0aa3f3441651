"""`python -m benchmarks.swap`: what a new version costs a busy worker: time, memory, latencies.

A worker serves a model while clients ask it one row at a time. A version of the same size is added, again and
again; each time the latencies of just before are compared with those of the time until every answer is the new
version's. Versions are packaged beforehand, as that takes the processors of this machine too. Then some are added
by the command, with no other load. Memory is that of all of a worker's processes, shared pages counted once (PSS).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import redis
import skops.io
from sklearn.linear_model import LinearRegression

from benchmarks import swap_page
from benchmarks.load import Load
from benchmarks.machine import commit, machine
from headrace import Client
from headrace.catalog.workers import decode_loaded, read_loaded
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_worker
from headrace_worker.models.sync import KEEP_SECONDS
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

_ROOT = Path(__file__).parent.parent
_PAGE, _KEPT = _ROOT / "docs" / "swapping.md", _ROOT / "benchmarks" / "results" / "swap.json"
_COLUMNS = 30
_ROW = [1.0] * _COLUMNS
#: Seconds within which a version has to be served, and a worker to start.
_PATIENCE = 120.0
#: Seconds after a swap until all is quiet again: the last pool process is forked anew.
_SETTLED = 3.0


class Swaps(NamedTuple):
    """How much is measured."""

    #: Swaps under load, one after the other.
    swaps: int = 5
    #: Versions added by the command, when that load has ended.
    commands: int = 3
    #: The model that is swapped under load, and the one whose memory is taken.
    megabytes: int = 50
    large_megabytes: int = 500
    #: Pool processes of the worker under load, and of that whose memory is taken.
    processes: int = 2
    pool: int = 4
    #: Clients, each with one job at a time, and the seconds each waits between two.
    clients: int = 8
    pause: float = 0.005
    #: Seconds of load before each swap.
    seconds: float = 4.0


class Swapping:
    """The measurements, on the Redis at a URL, with files in a folder."""

    def __init__(self, url: str, folder: Path, sizes: Swaps) -> None:
        self._url, self._folder, self._sizes = url, folder, sizes

    def run(self) -> dict[str, Any]:
        """Medians of the swaps under load; seconds by the command; memory. Milliseconds, seconds, megabytes."""
        return {"sizes": self._sizes._asdict(), **self._under_load(), "memory": self._memory()}

    def _under_load(self) -> dict[str, Any]:
        sizes = self._sizes
        model = _Model(self._folder, f"swapped-{sizes.megabytes}", sizes.megabytes)
        model.package(sizes.swaps + 1)
        model.release()
        swaps = []
        with model.served(self._url, sizes.processes):
            with Load(self._url, model.name, _ROW, clients=sizes.clients, pause=sizes.pause) as load:
                for number in range(2, sizes.swaps + 2):
                    print(f"swap {number - 1} of {sizes.swaps}", file=sys.stderr)
                    time.sleep(_SETTLED + sizes.seconds)
                    swaps.append(_swap(model, load, str(number), sizes.seconds))
            added = []
            for number in range(sizes.swaps + 2, sizes.swaps + 2 + sizes.commands):
                print(f"version {number} by the command", file=sys.stderr)
                added.append(self._by_command(model, str(number)))
        return {
            "jobs": len(load.answers),
            "failures": load.failures,
            "every_swap": swaps,
            "ms_p99_before": statistics.median(swap["ms_before"]["p99"] for swap in swaps),
            "ms_p99_during": statistics.median(swap["ms_during"]["p99"] for swap in swaps),
            "p99_of_before": statistics.median(swap["p99_of_before"] for swap in swaps),
            "seconds_to_first_answer": statistics.median(swap["seconds_to_first_answer"] for swap in swaps),
            "seconds_to_only_new_answers": statistics.median(
                swap["seconds_to_only_new_answers"] for swap in swaps
            ),
            "every_seconds_by_command": added,
            "seconds_by_command": statistics.median(added),
        }

    def _by_command(self, model: _Model, version: str) -> float:
        """Seconds from the start of `headrace models add` to the first answer of what it added."""
        file = model.write(float(version))
        time.sleep(_SETTLED)
        began = time.monotonic()
        command = [sys.executable, "-c", "from headrace.cli import main; main()", "models", "add", file]
        command += ["--name", model.name, "--example", model.example, "--store", model.store.path]
        subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=_PATIENCE)
        with Client(self._url, check=False) as client:
            while client.predict(model.name, _ROW, timeout=_PATIENCE).version != version:
                if time.monotonic() - began > _PATIENCE:
                    raise TimeoutError(f"{model.name}@{version} is not served")
                time.sleep(0.01)
        return time.monotonic() - began

    def _memory(self) -> dict[str, float]:
        """PSS of a worker with one pool process, of one with several, and of that after a swap."""
        sizes = self._sizes
        print(f"memory of a model of {sizes.large_megabytes} MB", file=sys.stderr)
        model = _Model(self._folder, f"large-{sizes.large_megabytes}", sizes.large_megabytes)
        model.package(2)
        model.release()
        with model.served(self._url, 1) as worker:
            one = pss(worker)
        with model.served(self._url, sizes.pool) as worker:
            several = pss(worker)
            model.release()
            _await_only(self._url, model.name, "2")
            time.sleep(_SETTLED)
            after = pss(worker)
        return {"one": one, "several": several, "after": after}


def _swap(model: _Model, load: Load, version: str, seconds: float) -> dict[str, Any]:
    model.release()
    added = time.monotonic()
    load.await_version(version)
    first = time.monotonic()
    load.await_only(version)
    only = time.monotonic()
    before, during = load.latencies(added - seconds, added), load.latencies(added, only)
    return {
        "ms_before": before,
        "ms_during": during,
        "p99_of_before": during["p99"] / before["p99"],
        "over_twice_p99_before": load.slower(added, only, 2 * before["p99"]),
        "seconds_to_first_answer": first - added,
        "seconds_to_only_new_answers": only - added,
    }


class _Model:
    """A model of some megabytes whose version answers with the first value times its number."""

    def __init__(self, folder: Path, name: str, megabytes: int) -> None:
        self.name, self._megabytes, self._folder = name, megabytes, folder / name
        self.store = Store(self._folder / "models")
        self._packaged = Store(self._folder / "packaged")
        self.example = self._folder / "rows.json"

    def package(self, versions: int) -> None:
        """Package versions where no worker sees them."""
        self._folder.mkdir(parents=True)
        self.example.write_text(json.dumps([_ROW]))
        for number in range(1, versions + 1):
            package(self._packaged, self.write(float(number)), name=self.name, example=self.example)

    def write(self, slope: float) -> Path:
        """The estimator as a file."""
        model = LinearRegression()
        model.coef_, model.intercept_ = np.array([slope] + [0.0] * (_COLUMNS - 1)), 0.0
        model.n_features_in_ = _COLUMNS
        model.ballast_ = np.random.default_rng(0).random(self._megabytes * 1024 * 128)
        file = self._folder / "model.skops"
        skops.io.dump(model, file)
        return file

    def release(self) -> None:
        """Put the next version that is packaged into the worker's store, in one step."""
        version = self._packaged.versions(self.name)[0]
        (self.store.path / self.name).mkdir(parents=True, exist_ok=True)
        (self._packaged.path / self.name / version).rename(self.store.path / self.name / version)

    @contextlib.contextmanager
    def served(self, url: str, processes: int) -> Iterator[Child]:
        """A worker that has answered."""
        worker = start_worker(url, self.store.path, self._folder, concurrency=processes)
        try:
            with Client(url) as client:
                client.predict(self.name, _ROW, timeout=_PATIENCE)
            yield worker
        finally:
            worker.stop()


def _await_only(url: str, model: str, version: str) -> None:
    """Wait until the worker has that version alone: the former one is kept for a while."""
    deadline = time.monotonic() + KEEP_SECONDS + _PATIENCE
    with redis.Redis.from_url(url) as client:
        while time.monotonic() < deadline:
            said = decode_loaded(execute(client, read_loaded(Keys(), model)), int(time.time() * 1000))
            if [one.versions for one in said.values()] == [(version,)]:
                return
            time.sleep(0.5)
    raise TimeoutError(f"{model}@{version} is not alone")


def pss(worker: Child) -> float:
    """Megabytes of a worker and its pool processes, what they share counted once."""
    main = worker.process.pid
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return sum(_pss_of(pid) for pid in [str(main), *children]) / 1024


def _pss_of(pid: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    """Measure, print the result as JSON, and with --docs write it into the documentation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swap", description=__doc__)
    for name, usual in Swaps()._asdict().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(usual), default=usual, help=f"{usual}")
    parser.add_argument(
        "--docs", action="store_true", help="write docs/swapping.md and benchmarks/results/swap.json"
    )
    given = vars(parser.parse_args())
    docs, sizes = given.pop("docs"), Swaps(**given)
    found: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(os.getloadavg()[0]),
    }
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis("--appendfsync", "no") as server:
        found |= Swapping(server.url, Path(folder), sizes).run()
    print(text := json.dumps(found, indent=1))
    if docs:
        _KEPT.write_text(text + "\n")
        swap_page.write_into(_PAGE, found)


if __name__ == "__main__":
    main()
