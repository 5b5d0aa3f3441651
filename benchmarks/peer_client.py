"""The client process of a peer, in the peer's environment: it reads commands on stdin and writes measurements.

`python -m benchmarks.peer_client NAME`; one JSON object a line in each direction. Times are taken here, in the
process that submits and waits, so that the communication with the suite costs nothing.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.peers.base import MODELS, Peer, Row, estimator

#: A calibration run has to take at least this share of the requested time.
_CALIBRATION_SHARE = 0.25
_MAX_JOBS = 400_000
#: Jobs of one call, for the rate of bulk submission.
_BULK_SIZE = 1_000


class PeerClient:
    """The commands of the suite, carried out with one peer: each public method is a command."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._rows: list[Row] = json.loads((MODELS / "rows.json").read_text())
        self._next_row = 0
        self._expected: dict[str, list[list[float]]] = {}

    def about(self) -> dict[str, Any]:
        """Return the peer's versions and settings."""
        versions = {}
        for name in (*self._peer.distributions, "hiredis"):
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                continue
        return {"versions": versions, "settings": self._peer.settings, "python": platform.python_version()}

    def worker_commands(self, processes: int) -> dict[str, Any]:
        """Return the commands that start the workers, and their environment variables."""
        return {"commands": self._peer.workers(processes), "environ": self._peer.environ()}

    def wait_for_workers(self, model: str, seconds: float) -> dict[str, float]:
        """Run jobs until some succeed: every project reports in its own way when a worker is ready."""
        started = time.monotonic()
        self._peer.wait_until_ready()
        while True:
            try:
                self.throughput(model, 4)
                return {"seconds": time.monotonic() - started}
            except Exception:  # a client may time out while the worker still loads
                if time.monotonic() - started > seconds:
                    raise

    def calibrate(self, model: str, seconds: float) -> dict[str, int]:
        """Return the number of jobs that take about `seconds`."""
        count = 64
        while True:
            duration = self.throughput(model, count)["seconds"]
            target = min(_MAX_JOBS, math.ceil(count / duration * seconds))
            if duration >= seconds * _CALIBRATION_SHARE or target <= count:
                return {"count": max(target, 64)}
            count = min(target, count * 8)

    def throughput(self, model: str, count: int) -> dict[str, float]:
        """Return the seconds from the first submission to the last result, and to the last submission."""
        rows = self._rows_for(count)
        started = time.perf_counter()
        jobs = self._peer.submit(model, rows)
        submitted = time.perf_counter()
        results = self._peer.collect(jobs)
        finished = time.perf_counter()
        self._check(model, count, results)
        return {"seconds": finished - started, "submit_seconds": submitted - started}

    def round_trips(self, model: str, count: int, seconds: float) -> dict[str, list[float]]:
        """Run single jobs with pauses between them, at most `count`; return the milliseconds of each."""
        pauses = random.Random(7)
        trips: list[float] = []
        end = time.perf_counter() + seconds
        while len(trips) < count and (time.perf_counter() < end or len(trips) < 10):
            (row,) = self._rows_for(1)
            time.sleep(pauses.uniform(0.005, 0.015))
            started = time.perf_counter()
            result = self._peer.round_trip(model, row)
            trips.append((time.perf_counter() - started) * 1000)
            self._check(model, 1, [result])
        return {"milliseconds": trips}

    def submissions(self, model: str, seconds: float) -> dict[str, float]:
        """Return the rate of submission in jobs per second, for single jobs and in bulk. No worker may run."""
        single = self._submit_rate(seconds, lambda rows: [self._peer.submit_one(model, row) for row in rows], 50)
        bulk = self._submit_rate(seconds, lambda rows: self._peer.submit(model, rows), _BULK_SIZE)
        return {"single": single, "bulk": bulk}

    def _submit_rate(self, seconds: float, submit: Callable[[list[Row]], Any], size: int) -> float:
        submit(self._rows_for(size))
        submitted, duration = 0, 0.0
        while duration < seconds:
            rows = self._rows_for(size)
            started = time.perf_counter()
            submit(rows)
            duration += time.perf_counter() - started
            submitted += size
        return submitted / duration

    def _rows_for(self, count: int) -> list[Row]:
        first, total = self._next_row, len(self._rows)
        self._next_row = (first + count) % total
        return [self._rows[(first + offset) % total] for offset in range(count)]

    def _check(self, model: str, count: int, results: list[list[float]]) -> None:
        """Compare the results of the last rows with the estimator's own. Raises RuntimeError where they differ."""
        if model not in self._expected:
            self._expected[model] = estimator(model).predict_proba(self._rows).tolist()
        expected, first = self._expected[model], self._next_row - count
        if len(results) != count:
            raise RuntimeError(f"{len(results)} results for {count} jobs")
        for offset, result in enumerate(results):
            correct = expected[(first + offset) % len(self._rows)]
            if not all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(correct, result, strict=True)):
                raise RuntimeError(f"wrong prediction {result}; correct is {correct}")


def main(name: str) -> None:
    """Carry out commands until stdin ends."""
    # Answers go to the original stdout; whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer: Peer = importlib.import_module(f"benchmarks.peers.{name}").Client()
    client = PeerClient(peer)
    peer.connect()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(client, command.pop("command"))(**command)
        except Exception as error:  # noqa: BLE001  # reported as the reason why the peer is left out
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
    peer.close()


if __name__ == "__main__":
    main(sys.argv[1])
