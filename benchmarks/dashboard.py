"""`python -m benchmarks.dashboard`: the time of each page of Flower, and its memory, with many jobs in it.

A real worker runs the jobs, so Flower stores the events that it stores in production. One job in fifty has an
instance of another width, so it fails and becomes a dead letter. Then each page is fetched several times in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import redis
import skops.io
from sklearn.linear_model import LinearRegression

from benchmarks import dashboard_page
from benchmarks.machine import commit, machine
from headrace import Client
from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.published import publish_contract
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_flower, start_worker
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

_ROOT = Path(__file__).parent.parent
_PAGE, _RESULTS = _ROOT / "docs" / "flower-benchmarks.md", _ROOT / "benchmarks" / "results" / "flower.json"
_MODEL = "churn"
_CHUNK, _TIMEOUT = 1_000, 3_600.0
#: The columns of the Tasks page that a click sorts.
_COLUMNS = ("uuid", "model", "version", "instances", "state", "attempts", "received", "wait", "runtime", "worker")

#: The terms that are searched.
_TERMS = (f"model:{_MODEL}", "version:2", "error:InvalidInput", 'reason:"bad input"', "state:FAILURE")


class Sizes(NamedTuple):
    """The size of the measurement."""

    #: Jobs that run, and models that have a contract. Flower holds the last 100,000 jobs.
    jobs: int = 100_000
    models: int = 50
    #: Requests of each page.
    requests: int = 15


class DashboardBenchmark:
    """The measurement, with the Redis at a URL and files in a folder."""

    def __init__(self, url: str, folder: Path, sizes: Sizes) -> None:
        self._url, self._folder, self._sizes = url, folder, sizes
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._site = f"http://127.0.0.1:{probe.getsockname()[1]}"

    def run(self) -> dict[str, Any]:
        """Run the jobs, then measure pages and memory."""
        models = self._folder / "models"
        self._package(Store(models))
        with contextlib.ExitStack() as stack:
            port = self._site.rpartition(":")[2]
            flower = start_flower(self._url, self._folder, port=int(port))
            stack.callback(flower.stop)
            stack.callback(start_worker(self._url, models, self._folder, concurrency=1).stop)
            started = time.monotonic()
            job = self._run_jobs()
            seconds = time.monotonic() - started
            pages = {title: self._measure(title, path) for title, path in _pages(self._sizes.jobs, job).items()}
            stored = self._rows("")["recordsTotal"]
            matches = {term: self._rows(term)["recordsFiltered"] for term in _TERMS}
            memory = {"peak": _memory_mb(flower, "VmHWM"), "now": _memory_mb(flower, "VmRSS")}
        return {
            "sizes": self._sizes._asdict(),
            "stored_jobs": stored,
            "matches": matches,
            "jobs_per_second": self._sizes.jobs / seconds,
            "pages_ms": pages,
            "memory_mb": memory,
        }

    def _package(self, store: Store) -> None:
        """Package two versions of a model, and publish the contracts of the others."""
        model = LinearRegression()
        model.coef_, model.intercept_, model.n_features_in_ = np.array([1.0, 2.0]), 0.0, 2
        file, example = self._folder / "model.skops", self._folder / "rows.json"
        skops.io.dump(model, file)
        example.write_text("[[1.0, 2.0]]")
        for _ in range(2):
            package(store, file, name=_MODEL, example=example)
        with redis.Redis.from_url(self._url) as client:
            for number in range(self._sizes.models - 1):
                contract = Contract(
                    model=f"model-{number:02}",
                    version="1",
                    input=Array(shape=(2,)),
                    methods={"predict": Output(shape=())},
                )
                publish_contract(client, Keys(), contract)

    def _run_jobs(self) -> str:
        """Run the jobs, no faster than Flower reads their events; return the id of one in the middle."""
        middle = ""
        rows = [[1.0, 2.0]] * _CHUNK
        rows[::50] = [[1.0]] * len(rows[::50])
        with Client(self._url, check=False) as client:
            for submitted in range(_CHUNK, self._sizes.jobs + 1, _CHUNK):
                version = "1" if submitted // _CHUNK % 2 else "2"
                handles = client.submit_many(_MODEL, rows, version=version)
                if submitted >= self._sizes.jobs // 2 and not middle:
                    middle = handles[_CHUNK // 2].id
                # Redis disconnects a subscriber that falls too far behind, and its events are lost.
                self._wait_for_events(submitted - 2 * _CHUNK)
                if submitted % (10 * _CHUNK) == 0:
                    print(f"{submitted:,} jobs", file=sys.stderr)
        self._wait_for_events(self._sizes.jobs)
        return middle

    def _wait_for_events(self, jobs: int) -> None:
        deadline = time.monotonic() + _TIMEOUT
        while (count := self._ended_jobs()) < jobs:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Flower has the events of {count:,} of {jobs:,} jobs")
            time.sleep(0.2)

    def _ended_jobs(self) -> int:
        pattern = r'^flower_events_total\{[^}]*type="task-(?:succeeded|failed)"[^}]*\} (\S+)'
        return int(sum(map(float, re.findall(pattern, self._fetch("/metrics"), re.MULTILINE))))

    def _measure(self, title: str, path: str) -> dict[str, float]:
        times = []
        for _ in range(self._sizes.requests):
            started = time.perf_counter()
            self._fetch(path)
            times.append(1000 * (time.perf_counter() - started))
        print(f"{title}: {statistics.median(times):.0f} ms, at most {max(times):.0f} ms", file=sys.stderr)
        return {"p50": statistics.median(times), "max": max(times)}

    def _rows(self, search: str) -> Any:
        return json.loads(self._fetch(_rows_path("received", search=search)))

    def _fetch(self, path: str) -> str:
        with urllib.request.urlopen(self._site + path, timeout=120) as response:
            text: str = response.read().decode()
            return text


def _rows_path(column: str, *, start: int = 0, search: str = "", direction: str = "desc") -> str:
    """Return the address that the table of the Tasks page fetches its rows from."""
    fields = {
        "draw": 1,
        "start": start,
        "length": 10,
        "search[value]": search,
        "order[0][column]": 0,
        "order[0][dir]": direction,
        "columns[0][data]": column,
    }
    return f"/tasks/datatable?{urllib.parse.urlencode(fields)}"


def _pages(jobs: int, job: str) -> dict[str, str]:
    """Return title and address of each page."""
    return {
        "Tasks": "/tasks",
        "rows of Tasks: first page": _rows_path("received"),
        "middle page": _rows_path("received", start=jobs // 2),
        "last page": _rows_path("received", start=jobs - 10),
        **{f"by {column}": _rows_path(column) for column in _COLUMNS},
        "by wait, middle page": _rows_path("wait", start=jobs // 2),
        "search: an id": _rows_path("received", search=job),
        **{f"search: {term}": _rows_path("received", search=term) for term in _TERMS},
        "search: model:churn (version:1 OR state:FAILURE), by wait": _rows_path(
            "wait", search="model:churn (version:1 OR state:FAILURE)"
        ),
        "Job": f"/jobs/{job}",
        "Dead letters": "/dead-letters",
        "Dead letters by cause": "/dead-letter-groups",
        "Queues": "/queues",
        "Models": "/models",
        "Runs": "/runs",
        "Workers": "/workers",
        "/metrics": "/metrics",
    }


def _memory_mb(child: Child, field: str) -> float:
    lines = Path(f"/proc/{child.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


@contextlib.contextmanager
def _measured(sizes: Sizes) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis("--appendfsync", "no") as server:
        yield DashboardBenchmark(server.url, Path(folder), sizes).run()


def main() -> None:
    """Measure and print the results as a table; with --docs also write them into the documentation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    for name, default in Sizes()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    parser.add_argument(
        "--docs",
        action="store_true",
        help=f"also write docs/{_PAGE.name} and benchmarks/results/{_RESULTS.name}",
    )
    arguments = vars(parser.parse_args())
    docs, sizes = arguments.pop("docs"), Sizes(**arguments)
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(os.getloadavg()[0]),
    }
    with _measured(sizes) as measured:
        results |= measured
    print(dashboard_page.as_plain_text(results))
    if docs:
        _RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        dashboard_page.write_into(_PAGE, results)


if __name__ == "__main__":
    main()
