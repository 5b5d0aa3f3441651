"""What a peer is to the suite: a few methods, the same for all. Runs in the peer's own environment.

A peer's file holds its task, as a user of that project would write it, and a `Client`. The task calls
`predict_row`, so that all run the same estimator on the same rows with one thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from functools import cache
from pathlib import Path
from typing import Any

#: Where the suite's Redis is, and the folder of the models and rows (`benchmarks.models`).
URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")
MODELS = Path(os.environ.get("BENCH_MODELS", "."))

#: Seconds to wait for a result before the run is given up.
PATIENCE = 60
#: Seconds between two looks for results, where a project looks instead of being told: for one job somebody
#: waits for, and for many, where looking often takes from the worker.
POLL_ONE, POLL_MANY = 0.002, 0.02

Row = list[float]


@cache
def estimator(model: str) -> Any:
    """The fitted estimator of a model."""
    import joblib

    return joblib.load(MODELS / f"{model}.joblib")


def predict_row(model: str, row: Row) -> list[float]:
    """The chances of the classes for one row: what every peer's task returns."""
    chances: list[float] = estimator(model).predict_proba([row])[0].tolist()
    return chances


if os.environ.get("BENCH_ROLE") == "worker":
    # Before the worker forks or takes its first job, as a careful user would.
    for file in MODELS.glob("*.joblib"):
        estimator(file.stem)


def poll(jobs: Sequence[Any]) -> float:
    """Seconds between two looks for the results of these jobs."""
    return POLL_ONE if len(jobs) == 1 else POLL_MANY


class Peer:
    """A task queue, from the side of its client. Jobs are whatever it gives for one."""

    #: Distributions whose versions are told.
    distributions: tuple[str, ...] = ()
    #: What was set beyond the project's defaults, in a sentence for the documentation.
    settings = "defaults"

    def workers(self, processes: int) -> list[list[str]]:
        """The commands, after `python`, that start worker processes: together `processes` that run jobs."""
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        """Variables its workers need."""
        return {}

    def connect(self) -> None:
        """Get ready to submit."""

    def wait_until_ready(self) -> None:
        """Wait for what must be there before a job can be submitted."""

    def submit_one(self, model: str, row: Row) -> Any:
        """Submit one job, as code that has one would."""
        raise NotImplementedError

    def submit(self, model: str, rows: Sequence[Row]) -> list[Any]:
        """Submit a job for each row, the quickest way the project has."""
        return [self.submit_one(model, row) for row in rows]

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        """Wait for the results of all jobs, in their order."""
        raise NotImplementedError

    def round_trip(self, model: str, row: Row) -> list[float]:
        """Submit one job and wait for its result."""
        return self.collect([self.submit_one(model, row)])[0]

    def close(self) -> None:
        """Let go of connections."""


class AsyncPeer(Peer):
    """A peer whose client is asynchronous: its own event loop, driven from outside."""

    #: Submissions in flight at a time.
    at_once = 100

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    async def open_async(self) -> None:
        """`connect`, on the loop."""

    async def submit_async(self, model: str, row: Row) -> Any:
        """`submit_one`, on the loop."""
        raise NotImplementedError

    async def collect_async(self, jobs: Sequence[Any]) -> list[list[float]]:
        """`collect`, on the loop."""
        raise NotImplementedError

    async def close_async(self) -> None:
        """`close`, on the loop."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine."""
        return self.runner.run(work)

    def connect(self) -> None:
        self.run(self.open_async())

    def submit_one(self, model: str, row: Row) -> Any:
        return self.run(self.submit_async(model, row))

    async def submit_many_async(self, model: str, rows: Sequence[Row]) -> list[Any]:
        """`submit`, on the loop: some at once."""
        jobs: list[Any] = []
        for start in range(0, len(rows), self.at_once):
            part = rows[start : start + self.at_once]
            jobs += await asyncio.gather(*(self.submit_async(model, row) for row in part))
        return jobs

    def submit(self, model: str, rows: Sequence[Row]) -> list[Any]:
        return list(self.run(self.submit_many_async(model, rows)))

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        return list(self.run(self.collect_async(jobs)))

    async def round_trip_async(self, model: str, row: Row) -> list[float]:
        """`round_trip`, on the loop."""
        return (await self.collect_async([await self.submit_async(model, row)]))[0]

    def round_trip(self, model: str, row: Row) -> list[float]:
        return list(self.run(self.round_trip_async(model, row)))

    def close(self) -> None:
        self.run(self.close_async())
        self.runner.close()
