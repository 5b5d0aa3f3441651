"""Real workers are shut down while models run: in bounded time, claims finish or are requeued uncounted."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis

from headrace import Client, JobHandle, Settings
from headrace.connection.celery import create_celery_app
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from tests.support.claim_models import LOOP_IN_C, SLEEP, add_model, count_claims, running_worker
from tests.support.processes import child_pids
from tests.support.waiting import wait_until

#: Seconds of a shutdown after its drain period.
EXIT_SECONDS = 4
#: Further seconds on a machine that is busy with other tests.
SLACK = 4
KEYS = Keys()
MODELS = ("doubling", "single")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    add_model(folder, "doubling")
    return add_model(folder, "single", max_batch_instances=1)


class Site:
    """A Redis, a client, and a model store for workers."""

    def __init__(self, url: str, models: Path, folder: Path, client: Client, server: redis.Redis) -> None:
        self.url, self.models, self.folder = url, models, folder
        self.client, self.server = client, server
        self._numbers = itertools.count(100)

    def start_worker(
        self, *options: str, name: str = "worker", drain: float = 25
    ) -> AbstractContextManager[Child]:
        return running_worker(
            *options,
            url=self.url,
            models=self.models,
            folder=self.folder,
            name=name,
            HEADRACE_LEASE="30",
            HEADRACE_DRAIN=str(drain),
        )

    def submit(self, count: int, action: int, seconds: float = 0, model: str = "doubling") -> list[JobHandle]:
        return self.client.submit_many(model, [[next(self._numbers), action, seconds] for _ in range(count)])

    def predict_calls(self) -> list[str]:
        """Return the predict calls so far: the numbers of their rows."""
        calls = self.folder / "calls"
        return [line for line in calls.read_text().splitlines() if line != "1"] if calls.exists() else []

    def wait_for_calls(self, calls: int = 1) -> None:
        wait_until(lambda: len(self.predict_calls()) >= calls)

    def count_waiting(self) -> int:
        return sum(self.server.llen(key) for model in MODELS for key in KEYS.lists(f"predict.{model}"))

    def is_unleased(self) -> bool:
        """Return True if no job is leased or isolated."""
        keys = [key for name in ("lease:*", "isolated:*") for key in self.server.scan_iter(f"headrace:{name}")]
        return not keys and not count_claims(self.server)


@pytest.fixture
def site(models: Path, tmp_path: Path) -> Iterator[Site]:
    with (
        EmbeddedRedis("--appendfsync", "no") as embedded,
        Client(embedded.url, check=False) as client,
        redis.Redis.from_url(embedded.url) as server,
    ):
        yield Site(embedded.url, models, tmp_path, client, server)


def shut_down(worker: Child, timeout: float, request: Callable[[], object]) -> float:
    """Request a shutdown. Return the seconds until the worker has ended, with all of its processes."""
    pool = child_pids(worker.process.pid)
    requested_at = time.monotonic()
    request()
    worker.process.wait(timeout + SLACK)
    duration = time.monotonic() - requested_at
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pool), 2)
    return duration


def send(worker: Child, *signals: int) -> Callable[[], None]:
    """Return a request for a shutdown by these signals."""

    def request() -> None:
        for number in signals:
            worker.process.send_signal(number)
            time.sleep(0.3)

    return request


@pytest.mark.parametrize(("action", "seconds"), [(SLEEP, 60), (LOOP_IN_C, 0)], ids=["asleep", "in C"])
def test_a_claim_that_exceeds_the_drain_runs_again_elsewhere_without_an_attempt(
    site: Site, action: int, seconds: float
) -> None:
    with site.start_worker(drain=1) as worker:
        (slow,) = site.submit(1, action, seconds, "single")
        site.wait_for_calls()
        duration = shut_down(worker, 1 + EXIT_SECONDS, send(worker, signal.SIGTERM))
        assert duration >= 1
        assert worker.process.returncode == 0
    assert site.count_waiting() == 1
    assert site.is_unleased()
    assert not slow.done()
    with site.start_worker(name="next", drain=0):
        site.wait_for_calls(2)
        assert len(site.predict_calls()) == 2
        slow.cancel()


def test_claims_that_finish_within_the_drain_have_their_outcomes_and_the_others_wait(site: Site) -> None:
    with site.start_worker(drain=20) as worker:
        jobs = site.submit(6, SLEEP, 1, "single")
        site.wait_for_calls(2)
        assert shut_down(worker, 20, send(worker, signal.SIGTERM)) < 10
        assert worker.process.returncode == 0
    done = [job for job in jobs if job.done()]
    assert 2 <= len(done) <= 4
    assert site.count_waiting() == 6 - len(done)
    assert site.is_unleased()


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
def test_a_second_signal_requeues_at_once_even_a_claim_that_ignores_signals(
    site: Site, signals: Sequence[signal.Signals]
) -> None:
    with site.start_worker() as worker:
        jobs = [*site.submit(1, LOOP_IN_C, model="single"), *site.submit(2, SLEEP, 60)]
        site.wait_for_calls(2)
        shut_down(worker, EXIT_SECONDS, send(worker, *signals))
    assert not any(job.done() for job in jobs)
    assert site.count_waiting() == 3
    assert site.is_unleased()


def test_a_signal_to_all_processes_of_a_worker_lets_them_drain_too(site: Site) -> None:
    # As systemd stops a unit.
    with site.start_worker() as worker:
        (job,) = site.submit(1, SLEEP, 1.5)
        site.wait_for_calls()

        def request() -> None:
            for pid in [worker.process.pid, *child_pids(worker.process.pid)]:
                os.kill(pid, signal.SIGTERM)

        shut_down(worker, 10, request)
        assert worker.process.returncode == 0
    assert job.done()
    assert len(site.predict_calls()) == 1
    assert site.is_unleased()


def test_a_remote_shutdown_is_bounded_too(site: Site) -> None:
    with site.start_worker(drain=1) as worker, create_celery_app(Settings(redis_url=site.url)) as app:
        site.submit(1, SLEEP, 60)
        site.wait_for_calls()
        shut_down(worker, 1 + EXIT_SECONDS, app.control.shutdown)
    assert site.count_waiting() == 1
    assert site.is_unleased()


def test_an_idle_worker_ends_at_once(site: Site) -> None:
    with site.start_worker() as worker:
        assert shut_down(worker, EXIT_SECONDS, send(worker, signal.SIGTERM)) < EXIT_SECONDS


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_worker_without_pool_processes_ends_in_time_too(site: Site, pool: str) -> None:
    with site.start_worker("--pool", pool, drain=1) as worker:
        site.submit(1, SLEEP, 60)
        site.wait_for_calls()
        shut_down(worker, 1 + EXIT_SECONDS, send(worker, signal.SIGTERM))
    assert site.count_waiting() == 1
    assert site.is_unleased()


def test_a_redis_that_does_not_answer_does_not_delay_the_shutdown(site: Site) -> None:
    with site.start_worker(drain=0.5) as worker:
        site.submit(1, SLEEP, 60)
        site.wait_for_calls()
        redis_pid = int(site.server.info("server")["process_id"])
        thaw = threading.Timer(20, os.kill, (redis_pid, signal.SIGCONT))
        thaw.start()
        try:
            os.kill(redis_pid, signal.SIGSTOP)
            shut_down(worker, 0.5 + EXIT_SECONDS, send(worker, signal.SIGTERM))
        finally:
            os.kill(redis_pid, signal.SIGCONT)
            thaw.cancel()
