"""The client of one peer, in the peer's environment: takes orders on stdin, answers with what it measured.

`python -m benchmarks.driver NAME`; one JSON object a line in each direction. Times are taken here, in the
process that submits and waits, so that how the suite talks to it costs nothing.
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

from benchmarks.peer import MODELS, Peer, Row, estimator

#: A run that finds the size of the next takes at least this part of the time that one is to take.
_ENOUGH = 0.25
_MOST_JOBS = 400_000
#: Jobs submitted in one call, where the rate of submitting is measured.
_BULK = 1_000


class Driver:
    """What the suite asks of a peer."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._rows: list[Row] = json.loads((MODELS / "rows.json").read_text())
        self._next = 0
        self._expected: dict[str, list[list[float]]] = {}

    def about(self) -> dict[str, Any]:
        """Versions, and what was set."""
        found = {}
        for name in (*self._peer.distributions, "hiredis"):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return {"versions": found, "settings": self._peer.settings, "python": platform.python_version()}

    def plan(self, processes: int) -> dict[str, Any]:
        """How its workers are started."""
        return {"commands": self._peer.workers(processes), "environ": self._peer.environ()}

    def start(self, model: str, seconds: float) -> dict[str, float]:
        """Wait until the worker answers: what it says when it is ready differs from one project to the next."""
        began = time.monotonic()
        self._peer.wait_until_ready()
        while True:
            try:
                self.throughput(model, 4)
                return {"seconds": time.monotonic() - began}
            except Exception:  # a client may lose patience while the worker still loads
                if time.monotonic() - began > seconds:
                    raise

    def calibrate(self, model: str, seconds: float) -> dict[str, int]:
        """How many jobs take about so long."""
        count = 64
        while True:
            took = self.throughput(model, count)["seconds"]
            wanted = min(_MOST_JOBS, math.ceil(count / took * seconds))
            if took >= seconds * _ENOUGH or wanted <= count:
                return {"count": max(wanted, 64)}
            count = min(wanted, count * 8)

    def throughput(self, model: str, count: int) -> dict[str, float]:
        """Seconds from the first submit to the last result in hand, and to the last submit."""
        rows = self._take(count)
        began = time.perf_counter()
        jobs = self._peer.submit(model, rows)
        submitted = time.perf_counter()
        results = self._peer.collect(jobs)
        ended = time.perf_counter()
        self._check(model, count, results)
        return {"seconds": ended - began, "submit_seconds": submitted - began}

    def round_trips(self, model: str, count: int, seconds: float) -> dict[str, list[float]]:
        """Milliseconds of single jobs, one after the other with pauses, for so long at the most."""
        chance = random.Random(7)
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while len(taken) < count and (time.perf_counter() < end or len(taken) < 10):
            (row,) = self._take(1)
            time.sleep(chance.uniform(0.005, 0.015))
            began = time.perf_counter()
            result = self._peer.round_trip(model, row)
            taken.append((time.perf_counter() - began) * 1000)
            self._check(model, 1, [result])
        return {"milliseconds": taken}

    def submits(self, model: str, seconds: float) -> dict[str, float]:
        """Jobs a second that can be put on the queue, one by one and many together. No worker runs."""
        one = self._rate(seconds, lambda rows: [self._peer.submit_one(model, row) for row in rows], 50)
        many = self._rate(seconds, lambda rows: self._peer.submit(model, rows), _BULK)
        return {"one": one, "many": many}

    def _rate(self, seconds: float, submit: Callable[[list[Row]], Any], at_once: int) -> float:
        submit(self._take(at_once))
        done, spent = 0, 0.0
        while spent < seconds:
            rows = self._take(at_once)
            began = time.perf_counter()
            submit(rows)
            spent += time.perf_counter() - began
            done += at_once
        return done / spent

    def _take(self, count: int) -> list[Row]:
        first, every = self._next, len(self._rows)
        self._next = (first + count) % every
        return [self._rows[(first + number) % every] for number in range(count)]

    def _check(self, model: str, count: int, results: list[list[float]]) -> None:
        """A peer that is quick to give wrong answers is not quick."""
        if model not in self._expected:
            self._expected[model] = estimator(model).predict_proba(self._rows).tolist()
        expected, first = self._expected[model], self._next - count
        if len(results) != count:
            raise RuntimeError(f"{len(results)} results for {count} jobs")
        for number, result in enumerate(results):
            want = expected[(first + number) % len(self._rows)]
            if not all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(want, result, strict=True)):
                raise RuntimeError(f"a wrong prediction: {result}, not {want}")


def main(name: str) -> None:
    """Answer until stdin ends."""
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer: Peer = importlib.import_module(f"benchmarks.peers.{name}").Client()
    driver = Driver(peer)
    peer.connect()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(driver, order.pop("do"))(**order)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the reason this peer is left out
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
    peer.close()


if __name__ == "__main__":
    main(sys.argv[1])
