"""`python -m benchmarks.pool_replacement`: the cost of a new version to a busy worker in time, memory and latency.

A new version makes a worker replace its pool processes. Clients keep a worker busy with single rows while versions
of the same size are added in turn; the latencies just before each are compared with those until every answer comes
from the new version. Versions are packaged beforehand, because packaging needs the same processors. Then some are
added by the command, without other load. Memory is the PSS of all processes of a worker, which counts shared pages
once.
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

from benchmarks import pool_replacement_page
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
_PAGE, _RESULTS = _ROOT / "docs" / "swapping.md", _ROOT / "benchmarks" / "results" / "swap.json"
_COLUMNS = 30
_ROW = [1.0] * _COLUMNS
#: Seconds for a worker to start, and for a version to be served.
_TIMEOUT = 120.0
#: Seconds after a replacement until the last pool process is forked and the worker is idle.
_SETTLE_SECONDS = 3.0


class Sizes(NamedTuple):
    """The size of each measurement."""

    #: Replacements under load.
    replacements: int = 5
    #: Versions that are added by the command, after the load.
    commands: int = 3
    #: Size of the model that is replaced under load, and of the model for the memory measurement.
    megabytes: int = 50
    large_megabytes: int = 500
    #: Pool processes of the worker under load, and of the worker for the memory measurement.
    processes: int = 2
    pool: int = 4
    #: Clients, each with one job at a time, and each client's seconds between two jobs.
    clients: int = 8
    pause: float = 0.005
    #: Seconds of load before each replacement.
    seconds: float = 4.0


class ReplacementBenchmark:
    """The measurements, with the Redis at a URL and files in a folder."""

    def __init__(self, url: str, folder: Path, sizes: Sizes) -> None:
        self._url, self._folder, self._sizes = url, folder, sizes

    def run(self) -> dict[str, Any]:
        """Measure replacements under load, additions by the command, and memory."""
        return {"sizes": self._sizes._asdict(), **self._under_load(), "memory_mb": self._memory()}

    def _under_load(self) -> dict[str, Any]:
        sizes = self._sizes
        model = _Model(self._folder, f"replaced-{sizes.megabytes}", sizes.megabytes)
        model.package(sizes.replacements + 1)
        model.release()
        replacements = []
        with model.served(self._url, sizes.processes):
            with Load(self._url, model.name, _ROW, clients=sizes.clients, pause=sizes.pause) as load:
                for number in range(2, sizes.replacements + 2):
                    print(f"replacement {number - 1} of {sizes.replacements}", file=sys.stderr)
                    time.sleep(_SETTLE_SECONDS + sizes.seconds)
                    replacements.append(_replace(model, load, str(number), sizes.seconds))
            seconds_by_command = []
            for number in range(sizes.replacements + 2, sizes.replacements + 2 + sizes.commands):
                print(f"version {number} by the command", file=sys.stderr)
                seconds_by_command.append(self._by_command(model, str(number)))
        return {
            "jobs": len(load.answers),
            "failures": load.failures,
            "every_replacement": replacements,
            "p99_ms_before": statistics.median(entry["ms_before"]["p99"] for entry in replacements),
            "p99_ms_during": statistics.median(entry["ms_during"]["p99"] for entry in replacements),
            **{
                name: statistics.median(entry[name] for entry in replacements)
                for name in ("p99_ratio", "seconds_to_first_answer", "seconds_to_only_new_answers")
            },
            "every_seconds_by_command": seconds_by_command,
            "seconds_by_command": statistics.median(seconds_by_command),
        }

    def _by_command(self, model: _Model, version: str) -> float:
        """Return the seconds from the start of `headrace models add` to the first answer of the new version."""
        file = model.write(float(version))
        time.sleep(_SETTLE_SECONDS)
        started = time.monotonic()
        command = [sys.executable, "-c", "from headrace.cli import main; main()", "models", "add", file]
        command += ["--name", model.name, "--example", model.example, "--store", model.store.path]
        subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=_TIMEOUT)
        with Client(self._url, check=False) as client:
            while client.predict(model.name, _ROW, timeout=_TIMEOUT).version != version:
                if time.monotonic() - started > _TIMEOUT:
                    raise TimeoutError(f"{model.name}@{version} is not served after {_TIMEOUT:.0f} s")
                time.sleep(0.01)
        return time.monotonic() - started

    def _memory(self) -> dict[str, float]:
        """Measure a worker with one pool process, with several, and after a replacement, in megabytes."""
        sizes = self._sizes
        print(f"memory with a model of {sizes.large_megabytes} MB", file=sys.stderr)
        model = _Model(self._folder, f"large-{sizes.large_megabytes}", sizes.large_megabytes)
        model.package(2)
        model.release()
        with model.served(self._url, 1) as worker:
            single = pss_mb(worker)
        with model.served(self._url, sizes.pool) as worker:
            several = pss_mb(worker)
            model.release()
            _wait_for_only(self._url, model.name, "2")
            time.sleep(_SETTLE_SECONDS)
            after = pss_mb(worker)
        return {"one": single, "several": several, "after": after}


def _replace(model: _Model, load: Load, version: str, seconds: float) -> dict[str, Any]:
    """Release the next version under load; compare its latencies with those of the `seconds` before."""
    model.release()
    released = time.monotonic()
    load.wait_for_version(version)
    first_answer = time.monotonic()
    load.wait_for_only(version)
    finished = time.monotonic()
    before, during = load.latencies(released - seconds, released), load.latencies(released, finished)
    return {
        "ms_before": before,
        "ms_during": during,
        "p99_ratio": during["p99"] / before["p99"],
        "share_over_twice_p99_before": load.share_slower(released, finished, 2 * before["p99"]),
        "seconds_to_first_answer": first_answer - released,
        "seconds_to_only_new_answers": finished - released,
    }


class _Model:
    """A linear model with ballast of some megabytes; version N predicts N times the first value of a row."""

    def __init__(self, folder: Path, name: str, megabytes: int) -> None:
        self.name, self._megabytes, self._folder = name, megabytes, folder / name
        self.store = Store(self._folder / "models")
        self._packaged = Store(self._folder / "packaged")
        self.example = self._folder / "rows.json"

    def package(self, versions: int) -> None:
        """Package versions in a store that no worker reads."""
        self._folder.mkdir(parents=True)
        self.example.write_text(json.dumps([_ROW]))
        for number in range(1, versions + 1):
            package(self._packaged, self.write(float(number)), name=self.name, example=self.example)

    def write(self, slope: float) -> Path:
        """Write the estimator of a version to a file; return its path."""
        model = LinearRegression()
        model.coef_, model.intercept_ = np.array([slope] + [0.0] * (_COLUMNS - 1)), 0.0
        model.n_features_in_ = _COLUMNS
        model.ballast_ = np.random.default_rng(0).random(self._megabytes * 1024 * 128)
        file = self._folder / "model.skops"
        skops.io.dump(model, file)
        return file

    def release(self) -> None:
        """Move the next packaged version into the worker's store, in one step."""
        version = self._packaged.versions(self.name)[0]
        (self.store.path / self.name).mkdir(parents=True, exist_ok=True)
        (self._packaged.path / self.name / version).rename(self.store.path / self.name / version)

    @contextlib.contextmanager
    def served(self, url: str, processes: int) -> Iterator[Child]:
        """Run a worker for the model; yield it once it has answered."""
        worker = start_worker(url, self.store.path, self._folder, concurrency=processes)
        try:
            with Client(url) as client:
                client.predict(self.name, _ROW, timeout=_TIMEOUT)
            yield worker
        finally:
            worker.stop()


def _wait_for_only(url: str, model: str, version: str) -> None:
    """Wait until the worker has dropped all other versions, some time after the last use. Raises TimeoutError."""
    deadline = time.monotonic() + KEEP_SECONDS + _TIMEOUT
    with redis.Redis.from_url(url) as client:
        while time.monotonic() < deadline:
            reply = execute(client, read_loaded(Keys(), model))
            statuses = decode_loaded(reply, int(time.time() * 1000)).values()
            if [status.versions for status in statuses] == [(version,)]:
                return
            time.sleep(0.5)
    raise TimeoutError(f"the worker still has other versions of {model} than {version}")


def pss_mb(worker: Child) -> float:
    """Return the memory of a worker and its pool processes in megabytes; shared pages count once."""
    main = worker.process.pid
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return sum(_pss_kb(pid) for pid in [str(main), *children]) / 1024


def _pss_kb(pid: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    """Measure and print the results as JSON; with --docs also write them into the documentation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool_replacement", description=__doc__)
    for name, default in Sizes()._asdict().items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default: {default}"
        )
    parser.add_argument(
        "--docs", action="store_true", help="also write docs/swapping.md and benchmarks/results/swap.json"
    )
    arguments = vars(parser.parse_args())
    docs, sizes = arguments.pop("docs"), Sizes(**arguments)
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(os.getloadavg()[0]),
    }
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis("--appendfsync", "no") as server:
        results |= ReplacementBenchmark(server.url, Path(folder), sizes).run()
    print(text := json.dumps(results, indent=1))
    if docs:
        _RESULTS.write_text(text + "\n")
        pool_replacement_page.write_into(_PAGE, results)


if __name__ == "__main__":
    main()
