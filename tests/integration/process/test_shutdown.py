"""Real workers that are told to stop while their models compute: it ends, or goes back uncounted, in time."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from headrace import Client, JobHandle, Settings
from headrace.connection.celery import create_celery_app
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from tests.support.claim_models import LOOP_IN_C, SLEEP, add_model, count_claims, running_worker
from tests.support.waiting import wait_until

#: Seconds a worker takes at the most to end, besides what it drains.
ENDS_WITHIN = 4
#: Seconds a machine that is busy with other tests may add.
SLACK = 4
KEYS = Keys()
MODELS = ("doubling", "single")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    add_model(folder, "doubling")
    return add_model(folder, "single", max_batch_instances=1)


class Place:
    """A Redis, a client, and the workers that serve it."""

    def __init__(self, url: str, models: Path, folder: Path, client: Client, server: redis.Redis) -> None:
        self.url, self.models, self.folder = url, models, folder
        self.client, self.server = client, server
        self._numbers = itertools.count(100)

    def serving(self, *options: str, name: str = "worker", drain: float = 25) -> Any:
        return running_worker(
            *options,
            url=self.url,
            models=self.models,
            folder=self.folder,
            name=name,
            HEADRACE_LEASE="30",
            HEADRACE_DRAIN=str(drain),
        )

    def submit(self, count: int, do: int, seconds: float = 0, model: str = "doubling") -> list[JobHandle]:
        return self.client.submit_many(model, [[next(self._numbers), do, seconds] for _ in range(count)])

    def calls(self) -> list[str]:
        """The predict calls so far: the numbers of their rows."""
        calls = self.folder / "calls"
        return [line for line in calls.read_text().splitlines() if line != "1"] if calls.exists() else []

    def running(self, calls: int = 1) -> None:
        wait_until(lambda: len(self.calls()) >= calls)

    def waiting(self) -> int:
        return sum(self.server.llen(key) for model in MODELS for key in KEYS.lists(f"predict.{model}"))

    def unleased(self) -> bool:
        """Nothing is leased, and nothing counts as tried."""
        left = [key for name in ("lease:*", "again:*") for key in self.server.scan_iter(f"headrace:{name}")]
        return not left and not count_claims(self.server)


@pytest.fixture
def place(models: Path, tmp_path: Path) -> Iterator[Place]:
    with (
        EmbeddedRedis("--appendfsync", "no") as own,
        Client(own.url, check=False) as client,
        redis.Redis.from_url(own.url) as server,
    ):
        yield Place(own.url, models, tmp_path, client, server)


def pool_of(worker: Child) -> list[int]:
    pid = worker.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ends(worker: Child, within: float, tell: Callable[[], object]) -> float:
    """Tell a worker to stop; returns in how many seconds it ended, with all of its processes."""
    pool = pool_of(worker)
    began = time.monotonic()
    tell()
    worker.process.wait(within + SLACK)
    took = time.monotonic() - began
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pool), 2)
    return took


def send(worker: Child, *signals: int) -> Callable[[], None]:
    def tell() -> None:
        for number in signals:
            worker.process.send_signal(number)
            time.sleep(0.3)

    return tell


@pytest.mark.parametrize(("do", "seconds"), [(SLEEP, 60), (LOOP_IN_C, 0)], ids=["asleep", "in C"])
def test_what_outlasts_the_drain_runs_elsewhere_once_and_counts_no_attempt(
    place: Place, do: int, seconds: float
) -> None:
    with place.serving(drain=1) as worker:
        (slow,) = place.submit(1, do, seconds, "single")
        place.running()
        took = ends(worker, 1 + ENDS_WITHIN, send(worker, signal.SIGTERM))
        assert took >= 1
        assert worker.process.returncode == 0
    assert place.waiting() == 1
    assert place.unleased()
    assert not slow.done()
    with place.serving(name="next", drain=0):
        place.running(2)
        assert len(place.calls()) == 2
        slow.cancel()


def test_what_ends_within_the_drain_has_its_outcome_and_the_rest_waits(place: Place) -> None:
    with place.serving(drain=20) as worker:
        jobs = place.submit(6, SLEEP, 1, "single")
        place.running(2)
        assert ends(worker, 20, send(worker, signal.SIGTERM)) < 10
        assert worker.process.returncode == 0
    done = [job for job in jobs if job.done()]
    assert 2 <= len(done) <= 4
    assert place.waiting() == 6 - len(done)
    assert place.unleased()


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGTERM, signal.SIGTERM],
        [signal.SIGQUIT],
        [signal.SIGINT, signal.SIGINT],
        pytest.param([signal.SIGINT, signal.SIGTERM], marks=pytest.mark.long),
        pytest.param([signal.SIGTERM, signal.SIGQUIT, signal.SIGQUIT], marks=pytest.mark.long),
    ],
    ids=lambda signals: " ".join(number.name for number in signals),
)
def test_told_twice_it_puts_back_at_once_even_what_no_signal_reaches(
    place: Place, signals: Sequence[signal.Signals]
) -> None:
    with place.serving() as worker:
        jobs = [*place.submit(1, LOOP_IN_C, model="single"), *place.submit(2, SLEEP, 60)]
        place.running(2)
        ends(worker, ENDS_WITHIN, send(worker, *signals))
    assert not any(job.done() for job in jobs)
    assert place.waiting() == 3
    assert place.unleased()


def test_a_signal_to_all_its_processes_lets_them_drain_too(place: Place) -> None:
    """As systemd stops a unit."""
    with place.serving() as worker:
        (job,) = place.submit(1, SLEEP, 1.5)
        place.running()

        def tell() -> None:
            for pid in [worker.process.pid, *pool_of(worker)]:
                os.kill(pid, signal.SIGTERM)

        ends(worker, 10, tell)
        assert worker.process.returncode == 0
    assert job.done()
    assert len(place.calls()) == 1
    assert place.unleased()


def test_a_remote_shutdown_is_bounded_too(place: Place) -> None:
    with place.serving(drain=1) as worker, create_celery_app(Settings(redis_url=place.url)) as app:
        place.submit(1, SLEEP, 60)
        place.running()
        ends(worker, 1 + ENDS_WITHIN, app.control.shutdown)
    assert place.waiting() == 1
    assert place.unleased()


def test_an_idle_worker_ends_at_once(place: Place) -> None:
    with place.serving() as worker:
        assert ends(worker, ENDS_WITHIN, send(worker, signal.SIGTERM)) < ENDS_WITHIN


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_worker_without_processes_ends_in_time_too(place: Place, pool: str) -> None:
    with place.serving("--pool", pool, drain=1) as worker:
        place.submit(1, SLEEP, 60)
        place.running()
        ends(worker, 1 + ENDS_WITHIN, send(worker, signal.SIGTERM))
    assert place.waiting() == 1
    assert place.unleased()


def test_a_redis_that_answers_nothing_does_not_keep_it(place: Place) -> None:
    with place.serving(drain=0.5) as worker:
        place.submit(1, SLEEP, 60)
        place.running()
        frozen = int(place.server.info("server")["process_id"])
        thaw = threading.Timer(20, os.kill, (frozen, signal.SIGCONT))
        thaw.start()
        try:
            os.kill(frozen, signal.SIGSTOP)
            ends(worker, 0.5 + ENDS_WITHIN, send(worker, signal.SIGTERM))
        finally:
            os.kill(frozen, signal.SIGCONT)
            thaw.cancel()
