"""A worker of `claim_models` with its own Redis, as fixtures, and functions that read the state of its jobs.

A test module imports the fixtures it uses, and lists them in its `__all__`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from headrace import Client, JobHandle
from headrace.errors import JobFailed
from headrace.wire.dead_letter import DeadLetter, decode_letter
from headrace.wire.keys import Keys
from headrace_worker.local.demo_models import add_demo_models
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from headrace_worker.store.store import Store
from tests.support.claim_models import NOTHING, add_model, count_claims, running_worker
from tests.support.waiting import wait_until

#: Seconds a lease lasts in these tests.
LEASE_SECONDS = 2
KEYS = Keys()


class Site(msgspec.Struct, frozen=True):
    """A Redis, a model store, and the folder to which workers write."""

    redis: EmbeddedRedis
    models: Path
    folder: Path
    demo: dict[str, Any]
    #: Process id of the shared worker.
    pid: int = 0
    #: Gives the first value of each row, which identifies it.
    numbers: Any = None

    @property
    def url(self) -> str:
        return self.redis.url

    def rows(self, count: int, action: int = NOTHING, seconds: float = 0) -> list[list[float]]:
        """Return rows that no other test uses."""
        return [[next(self.numbers), action, seconds] for _ in range(count)]

    def predict_calls(self, rows: list[list[float]]) -> list[list[int]]:
        """Return the predict calls that had any of these rows: the numbers of their rows."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        numbers = {int(row[0]) for row in rows}
        return [batch for line in lines if numbers & set(batch := [int(word) for word in line.split()])]

    def wait_until_predicting(self, rows: list[list[float]]) -> None:
        """Wait until the first of the rows is being predicted."""
        wait_until(lambda: self.predict_calls(rows[:1]))

    def pause(self, model: str) -> None:
        """Pause a model, and wait until the shared worker claims none of its jobs."""
        log = self.folder / "worker.log"

        def count_pauses() -> int:
            return sum(f"{model} is paused" in line for line in log.read_text().splitlines())

        former = count_pauses()
        with Client(self.url) as client:
            client.pause(model)
        wait_until(lambda: count_pauses() > former)

    def start_worker(self, *options: str, name: str = "worker", **settings: str) -> AbstractContextManager[Child]:
        """Start a worker of the test's own."""
        settings = {"HEADRACE_LEASE": str(LEASE_SECONDS), **settings}
        return running_worker(
            *options, url=self.url, models=self.models, folder=self.folder, name=name, **settings
        )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The path of a model store, and the demo models in it."""
    folder = tmp_path_factory.mktemp("store")
    add_model(folder, "doubling", max_batch_instances=64)
    add_model(folder, "single", max_batch_instances=1)
    add_model(folder, "patient", max_batch_instances=64, max_attempts=100, retry_delay=0.1, retry_delay_max=0.3)
    add_model(folder, "hasty", max_batch_instances=64, max_attempts=2, retry_delay=0)
    return folder / "models", add_demo_models(Store(folder / "models"))


@pytest.fixture(scope="module")
def shared(store: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose worker all tests of a module share. They must not harm it."""
    folder = tmp_path_factory.mktemp("worker")
    settings = {"HEADRACE_LEASE": str(LEASE_SECONDS)}
    with (
        EmbeddedRedis("--appendfsync", "no") as server,
        running_worker(url=server.url, models=store[0], folder=folder, **settings) as worker,
    ):
        yield Site(server, store[0], folder, store[1], worker.process.pid, itertools.count(100))


@pytest.fixture
def own(store: tuple[Path, dict[str, Any]], tmp_path: Path) -> Iterator[Site]:
    """A site of the test's own, without a worker."""
    with EmbeddedRedis() as server:
        yield Site(server, store[0], tmp_path, store[1], numbers=itertools.count(100))


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of the test's site, `own` or `shared`. It leaves the check of instances to the worker."""
    with Client(_site(request).url, check=False) as client:
        yield client


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A connection to the Redis of the test's site, `own` or `shared`."""
    with redis.Redis.from_url(_site(request).url) as server:
        yield server


def _site(request: pytest.FixtureRequest) -> Site:
    site: Site = request.getfixturevalue("own" if "own" in request.fixturenames else "shared")
    return site


def outcomes_of(jobs: Iterable[JobHandle], timeout: float = 30) -> list[str]:
    """Return each job's first prediction, or the reason of its failure."""
    outcomes = []
    for job in jobs:
        try:
            outcomes.append(str(job.result(timeout=timeout).prediction))
        except JobFailed as failed:
            outcomes.append(failed.reason)
    return outcomes


def doubled(rows: list[list[float]]) -> list[str]:
    """Return the predictions of rows."""
    return [str(2.0 * row[0]) for row in rows]


def count_waiting(server: redis.Redis, model: str = "doubling") -> int:
    """Return the number of waiting jobs of a model."""
    return sum(server.llen(key) for key in KEYS.lists(f"predict.{model}"))


def is_clean(server: redis.Redis) -> bool:
    """Return True if no job is waiting, delayed, isolated or leased."""
    return not count_claims(server) and not _find_work(server)


def describe_work(server: redis.Redis) -> str:
    """Return what `is_clean` does not permit, for the error of a test."""
    lists = {key: server.lrange(key, 0, 2) for key in _find_work(server) if server.type(key) == b"list"}
    leases = server.zrange(KEYS.leases, 0, -1, withscores=True)
    return f"{_find_work(server)}, {lists}, leases {leases} at {server.time()}"


def _find_work(server: redis.Redis) -> list[bytes]:
    # A lease that was ended while a connection was lost leaves a string for a while, which holds no job.
    leases = server.scan_iter("headrace:lease:*", _type="list")
    patterns = ("predict.*", "headrace:isolated:*", "headrace:delayed:*")
    return [*leases, *(key for pattern in patterns for key in server.scan_iter(pattern))]


def read_letter(server: redis.Redis, job: JobHandle) -> DeadLetter:
    """Return the dead letter of a job."""
    line = server.hget(KEYS.dead, job.id)
    assert line
    return decode_letter(job.id, line, 0)
