"""Several idle workers: one listens for all, a job costs the same as with one, and waits for no lost worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import redis

from headrace import Client
from headrace.wire.queues import queue_name
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.claim_models import SLEEP
from tests.support.served_worker import KEYS, Site, doubled, is_clean, outcomes_of, store
from tests.support.waiting import wait_until

__all__ = ["store"]  # fixtures

WORKERS = 4
MODELS = ("doubling", "single", "patient", "hasty")


@pytest.fixture(scope="module")
def fleet(store: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with workers of one process each, which serve the same models."""
    folder = tmp_path_factory.mktemp("fleet")
    with EmbeddedRedis("--appendfsync", "no") as server, ExitStack() as stack:
        site = Site(server, store[0], folder, store[1], numbers=iter(range(100, 10**6)))
        served = {"HEADRACE_SERVE": ",".join(MODELS), "HEADRACE_LEASE": "10"}
        for number in range(WORKERS):
            stack.enter_context(site.start_worker("--concurrency", "1", name=f"w{number}", **served))
        yield site


@pytest.fixture
def shared(fleet: Site, server: redis.Redis) -> Site:
    """The fleet, as the fixtures of the other tests name it, once a worker watches."""
    wait_until(lambda: watcher(server), 20)
    wait_until(lambda: is_clean(server), 20)
    return fleet


def watcher(server: redis.Redis) -> int:
    """Return the process id of the worker that watches; 0 if none does."""
    holder = server.get(KEYS.watch(map(queue_name, MODELS)))
    return int(holder.split(b"/")[1]) if holder else 0


def find_watcher(server: redis.Redis) -> int:
    """Return the process id of the worker that watches, when one does."""
    wait_until(lambda: watcher(server), 10)
    process = watcher(server)
    assert process  # 0 would be this process's own group
    return process


def calls(server: redis.Redis) -> int:
    """Return how many commands Redis has run, in scripts too."""
    return sum(entry["calls"] for entry in server.info("commandstats").values())


def submit(client: Client, site: Site, jobs: int) -> tuple[list[Any], list[str]]:
    """Submit jobs to all models in turn. Returns them and their predictions."""
    rows = site.rows(jobs)
    return [client.submit(MODELS[number % 4], row) for number, row in enumerate(rows)], doubled(rows)


@pytest.fixture
def server(fleet: Site) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(fleet.url) as server:
        yield server


@pytest.fixture
def client(fleet: Site) -> Iterator[Client]:
    with Client(fleet.url, check=False) as client:
        yield client


def test_an_idle_fleet_costs_redis_a_few_commands_for_each_worker(server: redis.Redis, shared: Site) -> None:
    def per_second() -> float:
        before, started = calls(server), time.monotonic()
        time.sleep(6)
        return (calls(server) - before) / (time.monotonic() - started)

    time.sleep(3)
    # The keeper of the queues costs the same for any number of workers. One window may have an election in it.
    assert median(per_second() for _ in range(3)) < 20 + 5 * WORKERS


def test_a_job_costs_redis_the_same_with_many_idle_workers(
    server: redis.Redis, client: Client, shared: Site
) -> None:
    def cost(jobs: int) -> float:
        """Return the commands while these jobs run one by one, within the same time for any number."""
        before, ends = calls(server), time.monotonic() + 6
        for number in range(jobs):
            client.predict(MODELS[number % 4], shared.rows(1)[0], timeout=20)
        time.sleep(max(0, ends - time.monotonic()))
        return calls(server) - before

    assert (cost(60) - cost(0)) / 60 < 60  # 472 where every idle worker claims for every job


def test_jobs_do_not_wait_for_a_busy_worker_while_others_are_idle(
    server: redis.Redis, client: Client, shared: Site
) -> None:
    for _ in range(3):
        (row,) = shared.rows(1, SLEEP, 3)
        running = client.submit("single", row)
        shared.wait_until_predicting([row])
        jobs, predictions = submit(client, shared, 12)
        assert outcomes_of(jobs) == predictions
        assert running.status() not in {"success", "failure"}
        assert outcomes_of([running]) == doubled([row])


def test_many_jobs_at_once_wake_as_many_workers_as_they_need(client: Client, shared: Site) -> None:
    rows = shared.rows(WORKERS, SLEEP, 2)
    jobs = [client.submit("single", row) for row in rows]
    shared.wait_until_predicting(rows[:1])
    wait_until(lambda: all(shared.predict_calls([row]) for row in rows), 10)
    assert outcomes_of(jobs) == doubled(rows)


def test_jobs_do_not_wait_for_a_watcher_that_is_frozen(server: redis.Redis, client: Client, shared: Site) -> None:
    frozen = find_watcher(server)
    os.kill(frozen, signal.SIGSTOP)
    try:
        jobs, predictions = submit(client, shared, 40)
        wait_until(lambda: watcher(server) not in {0, frozen}, 15)
        assert outcomes_of(jobs, timeout=30) == predictions
    finally:
        os.kill(frozen, signal.SIGCONT)
    jobs, predictions = submit(client, shared, 40)
    assert outcomes_of(jobs) == predictions


def test_no_job_is_lost_with_a_watcher_that_is_killed(server: redis.Redis, client: Client, shared: Site) -> None:
    jobs, predictions = submit(client, shared, 60)
    killed = find_watcher(server)
    os.killpg(os.getpgid(killed), signal.SIGKILL)
    more_jobs, more_predictions = submit(client, shared, 60)
    assert outcomes_of([*jobs, *more_jobs], timeout=40) == [*predictions, *more_predictions]
    wait_until(lambda: watcher(server) not in {0, killed}, 10)
