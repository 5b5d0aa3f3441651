"""An idle worker leaves a lease with Redis, and the next job comes under it: none is lost on the way."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from headrace import Client, JobHandle
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from headrace_worker.transport.blocking_claim import BlockingClaim
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease, parse_lease
from headrace_worker.transport.leases import Leases
from headrace_worker.transport.notifications import POLL_SECONDS
from tests.support.claim_models import SLEEP, add_model, running_worker
from tests.support.waiting import wait_until

KEYS = Keys()
LEASE = 2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    add_model(folder, "other")
    return add_model(folder, max_batch_instances=1)


@pytest.fixture
def own() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no") as own:
        yield own


@pytest.fixture
def server(own: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own.url) as server:
        yield server


@pytest.fixture
def client(own: EmbeddedRedis) -> Iterator[Client]:
    with Client(own.url) as client:
        yield client


def working(
    own: EmbeddedRedis, models: Path, folder: Path, name: str = "worker"
) -> contextlib.AbstractContextManager[Child]:
    return running_worker(url=own.url, models=models, folder=folder, name=name, HEADRACE_LEASE=str(LEASE))


def waits(server: redis.Redis, pid: int | None = None) -> list[bytes]:
    """The leases that stand, of any worker or of one."""
    members = server.zrange(KEYS.leases, 0, -1)
    return [
        member
        for member in members
        if (lease := parse_lease(member))
        and lease.blocking
        and not server.exists(KEYS.lease(lease.name))
        and (pid is None or f"/{pid}/".encode() in member)
    ]


def blocked(server: redis.Redis) -> list[str]:
    """The connections that wait for a job, by their ids."""
    return [one["id"] for one in server.client_list() if one["cmd"] == "blmove" and "b" in one["flags"]]


def attempts(job: JobHandle) -> int:
    """Runs of a job in vain, as it tells."""
    return sum(step.kind == "attempt" for step in job.explain().steps)


def make_wait(client: Client, server: redis.Redis, workers: int = 1) -> None:
    """Jobs of one queue and priority, as many at once as there are processes, until so many workers wait there."""
    deadline = time.monotonic() + 20
    while len(blocked(server)) < workers:
        assert time.monotonic() < deadline
        jobs = [client.submit("doubling", [1, SLEEP, 0.05]) for _ in range(2 * workers)]
        assert all(job.result(timeout=20) for job in jobs)
        time.sleep(0.1)


def test_a_job_comes_under_the_lease_that_stands(
    own: EmbeddedRedis, server: redis.Redis, client: Client, models: Path, tmp_path: Path
) -> None:
    with working(own, models, tmp_path) as worker:
        assert not waits(server)
        make_wait(client, server)
        assert sum(depth.leased for depth in client.queues()) == 0  # there is a lease, and nothing under it
        assert len(waits(server)) == 1
        job = client.submit("doubling", [21, SLEEP, 1])
        wait_until(lambda: sum(depth.leased for depth in client.queues()) == 1)
        assert job.result(timeout=20).prediction == 42
        make_wait(client, server)
        worker.stop()
    assert not server.exists(KEYS.leases)


def test_jobs_that_come_at_once_are_one_claim(
    own: EmbeddedRedis, server: redis.Redis, client: Client, models: Path, tmp_path: Path
) -> None:
    with working(own, models, tmp_path):
        while not blocked(server):
            client.predict("other", [1, 0, 0], timeout=20)
            time.sleep(0.1)
        jobs = client.submit_many("other", [[n, 0, 0] for n in range(10)])
        assert [job.result(timeout=20).prediction for job in jobs] == [2 * n for n in range(10)]
        claimed = [step for job in jobs for step in job.explain().steps if step.kind == "claimed"]
        assert [step.claim_size for step in claimed] == [10] * 10


def test_a_job_of_another_priority_or_queue_ends_the_wait(
    own: EmbeddedRedis, server: redis.Redis, client: Client, models: Path, tmp_path: Path
) -> None:
    took = []
    with working(own, models, tmp_path):
        for n in range(12):
            make_wait(client, server)
            time.sleep(0.02 * n)  # at any moment of the wait
            began = time.monotonic()
            if n % 2:
                client.submit("doubling", [1, 0, 0], priority=0).result(timeout=20)
            else:
                client.predict("other", [1, 0, 0], timeout=20)
            took.append(time.monotonic() - began)
    assert statistics.median(took) < POLL_SECONDS / 4


def test_jobs_in_many_places_are_not_waited_for_in_one(
    own: EmbeddedRedis, server: redis.Redis, client: Client, models: Path, tmp_path: Path
) -> None:
    with working(own, models, tmp_path):
        for n in range(10):
            client.submit("doubling", [1, 0, 0], priority=(0, 9)[n % 2]).result(timeout=20)
            assert not waits(server)


def test_a_connection_cut_while_it_waits_costs_no_job_and_no_attempt(
    own: EmbeddedRedis, server: redis.Redis, client: Client, models: Path, tmp_path: Path
) -> None:
    jobs = []
    with working(own, models, tmp_path):
        make_wait(client, server)
        for n in range(40):
            jobs.append(client.submit("doubling", [n, 0, 0]))
            for one in blocked(server):
                server.client_kill_filter(_id=one)
            time.sleep(0.01 * (n % 7))
        assert [job.result(timeout=20).prediction for job in jobs] == [2 * n for n in range(40)]
        assert not any(attempts(job) for job in jobs)


def test_a_worker_killed_while_it_waits_takes_no_job_with_it(
    own: EmbeddedRedis, server: redis.Redis, client: Client, models: Path, tmp_path: Path
) -> None:
    with working(own, models, tmp_path, "first") as first, working(own, models, tmp_path, "second"):
        make_wait(client, server, workers=2)
        assert waits(server, first.process.pid)
        jobs = [client.submit("doubling", [n, 0, 0]) for n in range(3)]
        os.killpg(first.process.pid, signal.SIGKILL)
        jobs += [client.submit("doubling", [n, 0, 0]) for n in range(3, 6)]
        assert [job.result(timeout=20).prediction for job in jobs] == [2 * n for n in range(6)]
        wait_until(lambda: not waits(server, first.process.pid), 30)  # looked at twice, ten seconds apart


def test_a_job_that_comes_to_a_worker_that_stands_still_runs_elsewhere_once(
    own: EmbeddedRedis, server: redis.Redis, client: Client, models: Path, tmp_path: Path
) -> None:
    with working(own, models, tmp_path, "first") as first, working(own, models, tmp_path, "second"):
        make_wait(client, server, workers=2)
        os.killpg(first.process.pid, signal.SIGSTOP)
        try:
            jobs = [
                client.submit("doubling", [n, 0, 0]) for n in range(4)
            ]  # one of them to the one that stands still
            assert [job.result(timeout=LEASE + 10).prediction for job in jobs] == [2 * n for n in range(4)]
        finally:
            os.killpg(first.process.pid, signal.SIGCONT)
        make_wait(client, server, workers=2)
        assert sorted(attempts(job) for job in jobs) in ([0, 0, 0, 0], [0, 0, 0, 1])


def test_a_redis_that_forbids_to_wait_wakes_workers_as_before(
    own: EmbeddedRedis, server: redis.Redis, client: Client, models: Path, tmp_path: Path
) -> None:
    server.execute_command("ACL", "SETUSER", "default", "-blmove")
    with working(own, models, tmp_path) as worker:
        took = []
        for n in range(8):
            time.sleep(0.03 * n)
            began = time.monotonic()
            client.predict("doubling", [1, 0, 0], timeout=20)
            took.append(time.monotonic() - began)
        assert statistics.median(took) < POLL_SECONDS / 4
        assert worker.log.read_text().count("Redis refuses BLMOVE") == 1


def test_a_job_under_a_lease_that_was_taken_away_is_claimed_and_not_run_without(server: redis.Redis) -> None:
    standing, numbers, asks = (
        BlockingClaim(KEYS, 10, time.monotonic),
        itertools.count(1),
        [ClaimLimits(queue="predict.doubling")],
    )
    for _ in range(2):
        lease = Lease(name="me/0", queue="predict.doubling", origins=((1, 1),))
        standing.record_claim(Claim(lease=lease, queued_messages=[b""]))
    lease = standing.offer(asks, lambda: f"me/{next(numbers)}")
    assert lease
    server.lpush("predict.doubling", b"job")
    connection = server.connection_pool.get_connection()
    connection.send_packed_command(connection.pack_commands(standing.commands(lease)))  # it was never in `leases`
    replies = [connection.read_response() for _ in range(standing.replies)]
    assert standing.receive(replies) is None
    got = Leases(server, KEYS).claim("me/9", asks, lease_ms=1000, parked=standing.offer(asks, str))
    assert isinstance(got, Claim)
    assert got.queued_messages == [b"job"]
    assert server.zrange(KEYS.leases, 0, -1) == [got.lease.member.encode()]
    server.connection_pool.release(connection)
