"""Measurements of Headrace alone: deep queues, memory of a job, one and two pool processes, direct prediction."""

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

from benchmarks.comparison import percentile
from benchmarks.models import CPU_BOUND, FAST_STORE, METHOD, STORE, TITLES
from benchmarks.redis_server import RedisServer
from benchmarks.sizes import Sizes
from headrace import Client
from headrace.settings import Settings
from headrace.wire.queues import queue_name
from headrace_worker.local.stack import Child, start_worker

#: Jobs submitted at a time to hold a depth.
_REFILL = 250
#: Messages that are read for the mean size of a message.
_SAMPLE = 200
_DRAIN_SECONDS = 1200.0
#: Seconds between two round trips, so that client, server and worker are idle before each.
_PAUSE = 0.02


class HeadraceOnly:
    """The measurements that need only Headrace's own worker."""

    def __init__(self, server: RedisServer, folder: Path, sizes: Sizes) -> None:
        self._server, self._folder, self._sizes = server, folder, sizes
        self._rows = json.loads((folder / "rows.json").read_text())

    def _client(self, **options: Any) -> Client:
        # The limit of a queue is checked as always; it is only above the number of jobs submitted here.
        return Client(settings=Settings(redis_url=self._server.url, queue_limit=10_000_000), **options)

    def _worker(self, concurrency: int, store: str = STORE) -> Child:
        return start_worker(
            self._server.url, self._folder / store, self._folder, concurrency=concurrency, name="headrace-only"
        )

    def _endless_rows(self) -> Iterator[Any]:
        return cycle(self._rows)

    def depths(self) -> list[dict[str, float]]:
        """Measure throughput and memory at each depth: a row for each, with medians over the rounds.

        `of_shallow` is the throughput relative to that of the first depth in the same round. A machine drifts, so
        the order of the depths changes with each round.
        """
        # Without an append-only file: filling the deep queue would write 2 GB of it, and measure how fast the
        # machine finds memory for that.
        self._server.set_append_only(enabled=False)
        try:
            turns = [self._at_depths(reverse=number % 2 == 1) for number in range(self._sizes.rounds)]
        finally:
            self._server.set_append_only(enabled=True)
        return [
            {name: statistics.median(turn[index][name] for turn in turns) for name in turns[0][index]}
            for index in range(len(self._sizes.depths))
        ]

    def _at_depths(self, *, reverse: bool) -> list[dict[str, float]]:
        depths = self._sizes.depths
        rows = {depth: self._at_depth(depth) for depth in (reversed(depths) if reverse else depths)}
        shallow = rows[depths[0]]["jobs_per_second"]
        return [row | {"of_shallow": row["jobs_per_second"] / shallow} for row in map(rows.__getitem__, depths)]

    def _at_depth(self, depth: int) -> dict[str, float]:
        print(f"a queue of {depth:,} jobs", file=sys.stderr)
        self._server.reset()
        model, rows = next(iter(TITLES)), self._endless_rows()
        memory_before = self._server.memory_bytes()
        with self._client(check=False) as client:
            client.submit_many(model, islice(rows, depth))
            memory = (self._server.memory_bytes() - memory_before) / depth
            messages = self._server.client.lrange(queue_name(model), 0, _SAMPLE - 1)
            message = statistics.mean(map(len, messages))  # type: ignore[arg-type]  # not asyncio
            self._server.wait_until_idle()
            worker = self._worker(2)
            try:
                self._hold(client, model, rows, depth, self._sizes.depth_warm_up)
                cpu_before = self._server.cpu_seconds()
                jobs, seconds = self._hold(client, model, rows, depth, self._sizes.depth_seconds)
                cpu = self._server.cpu_seconds() - cpu_before
            finally:
                worker.stop()
        return {
            "depth": depth,
            "jobs_per_second": jobs / seconds,
            "redis_cpu_us": 1e6 * cpu / jobs,
            "memory_bytes": memory,
            "message_bytes": message,
        }

    def _hold(
        self, client: Client, model: str, rows: Iterator[Any], depth: int, seconds: float
    ) -> tuple[int, float]:
        """Keep the queue at a depth for some seconds; return the jobs that workers took, and the seconds."""
        queue, added = queue_name(model), 0
        first: int = self._server.client.llen(queue)  # type: ignore[assignment]  # not asyncio
        started = time.monotonic()
        while (now := time.monotonic()) - started < seconds:
            if self._server.client.llen(queue) < depth:  # type: ignore[operator]  # not asyncio
                client.submit_many(model, list(islice(rows, _REFILL)))
                added += _REFILL
            else:
                time.sleep(0.001)
        last: int = self._server.client.llen(queue)  # type: ignore[assignment]  # not asyncio
        return first + added - last, now - started

    def pools(self) -> dict[str, float]:
        """Measure one and two pool processes with a CPU-bound model: median jobs per second of each."""
        rates: dict[int, list[float]] = {1: [], 2: []}
        for number in range(self._sizes.rounds):
            for processes in (1, 2) if number % 2 == 0 else (2, 1):
                print(f"pool processes: {processes}", file=sys.stderr)
                rates[processes].append(self._drain(processes))
        return {"one": statistics.median(rates[1]), "two": statistics.median(rates[2])}

    def _drain(self, processes: int) -> float:
        """Return the rate at which a prepared queue empties, between its first and its last tenth."""
        self._server.reset()
        count = self._sizes.pool_jobs
        with self._client(check=False) as client:
            jobs = client.submit_many(CPU_BOUND, islice(self._endless_rows(), count))
            worker = self._worker(processes)
            try:
                finished = []
                for job in client.as_completed(jobs, timeout=_DRAIN_SECONDS):
                    finished.append(time.monotonic())
                    job.result()
            finally:
                worker.stop()
        first, last = count // 10, count - count // 10
        return (last - first) / (finished[last] - finished[first])

    def fast_round_trip(self, model: str = "forest") -> dict[str, float]:
        """Measure idle round trips with a large model in its fastest runtime, in milliseconds."""
        print(f"round trips of {model} in a fast runtime", file=sys.stderr)
        self._server.reset()
        worker = self._worker(2, FAST_STORE)
        try:
            with self._client(check=False) as client:
                trips = []
                for row in islice(self._endless_rows(), self._sizes.round_trips):
                    time.sleep(_PAUSE)
                    trips.append(_seconds(lambda rows: client.predict(model, rows[0], timeout=60), [row]) * 1000)
        finally:
            worker.stop()
        trips.sort()
        return {"p50": percentile(trips, 50), "p99": percentile(trips, 99), "count": len(trips)}

    def in_process(self) -> dict[str, dict[str, float]]:
        """Measure the estimator called directly, with 1 row and with 64 rows: the upper limit of any queue."""
        results = {}
        for model in TITLES:
            predict = getattr(joblib.load(self._folder / f"{model}.joblib"), METHOD)
            with threadpool_limits(1):
                single = [_seconds(predict, [row]) for row in islice(self._endless_rows(), 200)]
                batch = [_seconds(predict, self._rows[:64]) for _ in range(50)]
            results[model] = {
                "p50_ms": statistics.median(single) * 1000,
                "rows_per_second": 1 / statistics.median(single),
                "rows_per_second_of_64": 64 / statistics.median(batch),
            }
        return results


def _seconds(predict: Any, rows: list[Any]) -> float:
    started = time.perf_counter()
    predict(rows)
    return time.perf_counter() - started
