"""The interface of a peer, and the task that all peers run. Imported in the peer's own environment.

A peer's module holds its task, as a user of that project would write it, and a class `Client`. The task calls
`predict_row`, so that all peers run the same estimator on the same rows with one thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from functools import cache
from pathlib import Path
from typing import Any

#: The Redis of the suite, and the folder of models and rows (`benchmarks.models`).
URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")
MODELS = Path(os.environ.get("BENCH_MODELS", "."))

#: Seconds to wait for a result before the run fails.
RESULT_TIMEOUT = 60
#: Seconds between two polls for results, for projects that poll: for a single job, and for many jobs, where
#: frequent polls would take CPU from the workers.
POLL_SINGLE, POLL_MANY = 0.002, 0.02

Row = list[float]


@cache
def estimator(model: str) -> Any:
    """Load the fitted estimator of a model, once a process."""
    import joblib

    return joblib.load(MODELS / f"{model}.joblib")


def predict_row(model: str, row: Row) -> list[float]:
    """Return the class probabilities of one row: the result of every peer's task."""
    probabilities: list[float] = estimator(model).predict_proba([row])[0].tolist()
    return probabilities


if os.environ.get("BENCH_ROLE") == "worker":
    # Load the models before the worker forks or takes its first job, as a careful user would.
    for file in MODELS.glob("*.joblib"):
        estimator(file.stem)


def poll_interval(jobs: Sequence[Any]) -> float:
    """Return the seconds between two polls for the results of these jobs."""
    return POLL_SINGLE if len(jobs) == 1 else POLL_MANY


class Peer:
    """The client side of a task queue. A job is whatever object the project returns for it."""

    #: Distributions whose versions the report lists.
    distributions: tuple[str, ...] = ()
    #: Settings that differ from the project's defaults, for the report.
    settings = "defaults"

    def workers(self, processes: int) -> list[list[str]]:
        """Return the worker commands, without `python`, that start `processes` pool processes in total."""
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        """Return environment variables for the workers."""
        return {}

    def connect(self) -> None:
        """Prepare to submit."""

    def wait_until_ready(self) -> None:
        """Wait for whatever the project needs before the first submission."""

    def submit_one(self, model: str, row: Row) -> Any:
        """Submit a single job, as code that has a single job would."""
        raise NotImplementedError

    def submit(self, model: str, rows: Sequence[Row]) -> list[Any]:
        """Submit a job for each row, by the project's fastest method."""
        return [self.submit_one(model, row) for row in rows]

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        """Wait for the results of all jobs, and return them in the order of the jobs."""
        raise NotImplementedError

    def round_trip(self, model: str, row: Row) -> list[float]:
        """Submit a single job and wait for its result."""
        return self.collect([self.submit_one(model, row)])[0]

    def close(self) -> None:
        """Close connections."""


class AsyncPeer(Peer):
    """A peer with an asyncio client; the blocking methods run it on an event loop of their own."""

    #: Submissions in flight at the same time.
    max_in_flight = 100

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    async def connect_async(self) -> None:
        """Prepare to submit."""

    async def submit_async(self, model: str, row: Row) -> Any:
        """Submit a single job."""
        raise NotImplementedError

    async def collect_async(self, jobs: Sequence[Any]) -> list[list[float]]:
        """Wait for the results of all jobs, and return them in the order of the jobs."""
        raise NotImplementedError

    async def close_async(self) -> None:
        """Close connections."""

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine and return its result."""
        return self.runner.run(coroutine)

    def connect(self) -> None:
        self.run(self.connect_async())

    def submit_one(self, model: str, row: Row) -> Any:
        return self.run(self.submit_async(model, row))

    async def submit_many_async(self, model: str, rows: Sequence[Row]) -> list[Any]:
        """Submit a job for each row, `max_in_flight` at a time."""
        jobs: list[Any] = []
        for start in range(0, len(rows), self.max_in_flight):
            chunk = rows[start : start + self.max_in_flight]
            jobs += await asyncio.gather(*(self.submit_async(model, row) for row in chunk))
        return jobs

    def submit(self, model: str, rows: Sequence[Row]) -> list[Any]:
        return list(self.run(self.submit_many_async(model, rows)))

    def collect(self, jobs: Sequence[Any]) -> list[list[float]]:
        return list(self.run(self.collect_async(jobs)))

    async def round_trip_async(self, model: str, row: Row) -> list[float]:
        """Submit a single job and wait for its result."""
        return (await self.collect_async([await self.submit_async(model, row)]))[0]

    def round_trip(self, model: str, row: Row) -> list[float]:
        return list(self.run(self.round_trip_async(model, row)))

    def close(self) -> None:
        self.run(self.close_async())
        self.runner.close()
