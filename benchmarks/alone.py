"""Headrace alone: a deep queue, the memory of a job, one and two pool processes, and predicting in process."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import joblib
from threadpoolctl import threadpool_limits

from benchmarks.compare import percentile
from benchmarks.models import BOUND, FAST_STORE, METHOD, STORE, TITLES
from benchmarks.server import Server
from benchmarks.sizes import Sizes
from headrace import Client
from headrace.settings import Settings
from headrace.wire.keys import queue_name
from headrace_worker.local.stack import Child, start_worker

#: Jobs handed in at once while a depth is kept up.
_PART = 250
#: Messages looked at for the size of one.
_SAMPLE = 200
_LOAD_SECONDS = 1200.0
#: Seconds before a round trip, so that everything is idle.
_PAUSE = 0.02


class Alone:
    """The measurements that need Headrace's own worker and nobody else's."""

    def __init__(self, server: Server, folder: Path, sizes: Sizes) -> None:
        self._server, self._folder, self._sizes = server, folder, sizes
        self._rows = json.loads((folder / "rows.json").read_text())

    def _client(self, **more: Any) -> Client:
        # The limit of a queue is checked as ever; it is only higher than what we put there.
        return Client(settings=Settings(redis_url=self._server.url, queue_limit=10_000_000), **more)

    def _worker(self, concurrency: int, store: str = STORE) -> Child:
        return start_worker(
            self._server.url, self._folder / store, self._folder, concurrency=concurrency, name="alone"
        )

    def _endless(self) -> Iterator[Any]:
        return cycle(self._rows)

    def depth(self) -> list[dict[str, float]]:
        """Jobs a second while so many wait, and the memory each takes; medians of turns, the depths in turn."""
        # Filling the deep queue writes 2 GB of the log: how fast a machine finds memory for it would be measured.
        self._server.log(on=False)
        try:
            turns = [[self._at(depth) for depth in self._sizes.depths] for _ in range(self._sizes.rounds)]
        finally:
            self._server.log(on=True)
        return [
            {name: statistics.median(turn[place][name] for turn in turns) for name in turns[0][place]}
            for place in range(len(self._sizes.depths))
        ]

    def _at(self, depth: int) -> dict[str, float]:
        print(f"a queue of {depth:,}", file=sys.stderr)
        self._server.empty()
        model, rows = next(iter(TITLES)), self._endless()
        before = self._server.memory()
        with self._client(check=False) as client:
            client.submit_many(model, islice(rows, depth))
            memory = (self._server.memory() - before) / depth
            frames = self._server.client.lrange(queue_name(model), 0, _SAMPLE - 1)
            message = statistics.mean(map(len, frames))  # type: ignore[arg-type]  # not asyncio
            self._server.settle()
            worker = self._worker(2)
            try:
                self._keep(client, model, rows, depth, self._sizes.depth_warm)
                rate = self._keep(client, model, rows, depth, self._sizes.depth_seconds)
            finally:
                worker.stop()
        return {"depth": depth, "jobs_per_second": rate, "memory": memory, "message": message}

    def _keep(self, client: Client, model: str, rows: Iterator[Any], depth: int, seconds: float) -> float:
        """Keep up a depth for a while; how many jobs a second left the queue."""
        queue, added = queue_name(model), 0
        first: int = self._server.client.llen(queue)  # type: ignore[assignment]  # not asyncio
        began = time.monotonic()
        while (now := time.monotonic()) - began < seconds:
            if self._server.client.llen(queue) < depth:  # type: ignore[operator]  # not asyncio
                client.submit_many(model, list(islice(rows, _PART)))
                added += _PART
            else:
                time.sleep(0.001)
        last: int = self._server.client.llen(queue)  # type: ignore[assignment]  # not asyncio
        return (first + added - last) / (now - began)

    def pools(self) -> dict[str, float]:
        """Jobs a second of one pool process and of two, on a model bound by CPU, medians."""
        measured: dict[int, list[float]] = {1: [], 2: []}
        for number in range(self._sizes.rounds):
            for processes in (1, 2) if number % 2 == 0 else (2, 1):
                print(f"pool processes: {processes}", file=sys.stderr)
                measured[processes].append(self._drain(processes))
        return {"one": statistics.median(measured[1]), "two": statistics.median(measured[2])}

    def _drain(self, processes: int) -> float:
        """The rate at which jobs enqueued beforehand end, from the first tenth to the last."""
        self._server.empty()
        count = self._sizes.pool_jobs
        with self._client(check=False) as client:
            jobs = client.submit_many(BOUND, islice(self._endless(), count))
            worker = self._worker(processes)
            try:
                ended = []
                for job in client.as_completed(jobs, timeout=_LOAD_SECONDS):
                    ended.append(time.monotonic())
                    job.result()
            finally:
                worker.stop()
        first, last = count // 10, count - count // 10
        return (last - first) / (ended[last] - ended[first])

    def fast_trip(self, model: str = "forest") -> dict[str, float]:
        """Milliseconds of an idle round trip with a large model in the quickest runtime found for it."""
        print(f"round trips of {model} in a fast runtime", file=sys.stderr)
        self._server.empty()
        worker = self._worker(2, FAST_STORE)
        try:
            with self._client(check=False) as client:
                trips = []
                for row in islice(self._endless(), self._sizes.round_trips):
                    time.sleep(_PAUSE)
                    trips.append(_timed(lambda rows: client.predict(model, rows[0], timeout=60), [row]) * 1000)
        finally:
            worker.stop()
        trips.sort()
        return {"p50": percentile(trips, 50), "p99": percentile(trips, 99), "count": len(trips)}

    def in_process(self) -> dict[str, dict[str, float]]:
        """The limit: the estimator called by itself, row by row and 64 rows at a time."""
        found = {}
        for model in TITLES:
            predict = getattr(joblib.load(self._folder / f"{model}.joblib"), METHOD)
            with threadpool_limits(1):
                one = [_timed(predict, [row]) for row in islice(self._endless(), 200)]
                many = [_timed(predict, self._rows[:64]) for _ in range(50)]
            found[model] = {
                "p50_ms": statistics.median(one) * 1000,
                "rows_per_second": 1 / statistics.median(one),
                "rows_per_second_of_64": 64 / statistics.median(many),
            }
        return found


def _timed(predict: Any, rows: list[Any]) -> float:
    began = time.perf_counter()
    predict(rows)
    return time.perf_counter() - began
