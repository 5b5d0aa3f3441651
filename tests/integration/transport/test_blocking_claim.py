"""An idle worker parks a lease and waits at Redis; the next job arrives under it, and no job is lost."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from kombu import Connection, Exchange, Queue

from headrace import Client, JobHandle
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from headrace_worker.transport.blocking_claim import BlockingClaim
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease, parse_lease
from headrace_worker.transport.leases import Leases
from tests.support import rare_polls
from tests.support.claim_models import SLEEP, add_model, running_worker
from tests.support.processes import signal_worker
from tests.support.waiting import wait_until

KEYS = Keys()
LEASE_SECONDS = 2
WorkerStarter = Callable[..., contextlib.AbstractContextManager[Child]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    add_model(folder, "other")
    return add_model(folder, max_batch_instances=1)


@pytest.fixture
def embedded() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no") as embedded:
        yield embedded


@pytest.fixture
def server(embedded: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(embedded.url) as server:
        yield server


@pytest.fixture
def client(embedded: EmbeddedRedis) -> Iterator[Client]:
    with Client(embedded.url) as client:
        yield client


@pytest.fixture
def start_worker(embedded: EmbeddedRedis, models: Path, tmp_path: Path) -> WorkerStarter:
    """Return a function that starts a worker of this name, to be entered as a context."""

    def start(*options: str, name: str = "worker", **settings: str) -> contextlib.AbstractContextManager[Child]:
        settings = {"HEADRACE_LEASE": str(LEASE_SECONDS), **settings}
        return running_worker(*options, url=embedded.url, models=models, folder=tmp_path, name=name, **settings)

    return start


def parked_leases(server: redis.Redis, pid: int | None = None) -> list[bytes]:
    """Return the parked leases, of any worker or of the one with this process id."""
    members = server.zrange(KEYS.leases, 0, -1)
    return [
        member
        for member in members
        if (lease := parse_lease(member))
        and lease.blocking
        and not server.exists(KEYS.lease(lease.name))
        and (pid is None or f"/{pid}/".encode() in member)
    ]


def blocked_connections(server: redis.Redis) -> list[str]:
    """Return the ids of the connections that wait for a job."""
    connections = server.client_list()
    return [
        connection["id"]
        for connection in connections
        if connection["cmd"] == "blmove" and "b" in connection["flags"]
    ]


def count_attempts(job: JobHandle) -> int:
    """Return the number of attempts in the history of a job."""
    return sum(step.kind == "attempt" for step in job.explain().steps)


def wait_for_blocking(client: Client, server: redis.Redis) -> None:
    """Submit jobs of one queue and priority, one for each process at once, until a worker waits there."""
    deadline = time.monotonic() + 20
    while not blocked_connections(server):
        assert time.monotonic() < deadline
        jobs = [client.submit("doubling", [1, SLEEP, 0.05]) for _ in range(2)]
        assert all(job.result(timeout=20) for job in jobs)
        time.sleep(0.1)


def test_a_job_arrives_under_the_parked_lease(
    start_worker: WorkerStarter, server: redis.Redis, client: Client
) -> None:
    with start_worker() as worker:
        assert not parked_leases(server)
        wait_for_blocking(client, server)
        assert sum(depth.leased for depth in client.queues()) == 0  # the lease is empty
        assert len(parked_leases(server)) == 1
        job = client.submit("doubling", [21, SLEEP, 1])
        wait_until(lambda: sum(depth.leased for depth in client.queues()) == 1)
        assert job.result(timeout=20).prediction == 42
        wait_for_blocking(client, server)
        worker.stop()
    assert not server.exists(KEYS.leases)


def test_jobs_submitted_at_once_are_one_claim(
    start_worker: WorkerStarter, server: redis.Redis, client: Client
) -> None:
    with start_worker():
        while not blocked_connections(server):
            client.predict("other", [1, 0, 0], timeout=20)
            time.sleep(0.1)
        jobs = client.submit_many("other", [[n, 0, 0] for n in range(10)])
        assert [job.result(timeout=20).prediction for job in jobs] == [2 * n for n in range(10)]
        claimed = [step for job in jobs for step in job.explain().steps if step.kind == "claimed"]
        assert [step.claim_size for step in claimed] == [10] * 10


def test_a_job_of_another_priority_or_queue_ends_the_wait(
    start_worker: WorkerStarter, server: redis.Redis, client: Client
) -> None:
    with start_worker(*rare_polls.OPTIONS, **rare_polls.SETTINGS):
        for n in range(12):
            wait_for_blocking(client, server)
            time.sleep(0.02 * n)  # at any moment of the wait
            if n % 2:
                client.submit("doubling", [1, 0, 0], priority=0).result(timeout=20)
            else:
                client.predict("other", [1, 0, 0], timeout=20)


def test_a_worker_does_not_wait_at_one_list_if_jobs_come_from_several(
    start_worker: WorkerStarter, server: redis.Redis, client: Client
) -> None:
    with start_worker():
        for n in range(10):
            client.submit("doubling", [1, 0, 0], priority=(0, 9)[n % 2]).result(timeout=20)
            assert not parked_leases(server)


def test_a_job_is_delivered_with_the_notification_of_it(embedded: EmbeddedRedis, server: redis.Redis) -> None:
    messages = []
    queue = Queue("predict.doubling", Exchange(""), routing_key="predict.doubling")
    with (
        Connection(embedded.url, transport="headrace_worker.transport:Transport") as connection,
        connection.Consumer(queue, on_message=messages.append),
        connection.channel() as channel,
    ):
        poller = channel.connection.cycle
        for count in (1, 2):
            server.lpush(queue.name, b"job")
            while len(messages) < count:
                connection.drain_events(timeout=5)
            messages[-1].ack()
        while not blocked_connections(server):
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.1)
        server.lpush(queue.name, b"job")
        wait_until(lambda: not blocked_connections(server))
        (listener,) = poller._listeners
        poller.on_readable(listener)
        assert len(messages) == 3
        messages[-1].ack()


def test_a_connection_cut_during_a_blocking_claim_costs_no_job_and_no_attempt(
    start_worker: WorkerStarter, server: redis.Redis, client: Client
) -> None:
    jobs = []
    with start_worker():
        wait_for_blocking(client, server)
        for n in range(40):
            jobs.append(client.submit("doubling", [n, 0, 0]))
            for connection in blocked_connections(server):
                server.client_kill_filter(_id=connection)
            time.sleep(0.01 * (n % 7))
        assert [job.result(timeout=20).prediction for job in jobs] == [2 * n for n in range(40)]
        assert not any(count_attempts(job) for job in jobs)


def test_a_worker_killed_during_a_blocking_claim_loses_no_job(
    start_worker: WorkerStarter, server: redis.Redis, client: Client
) -> None:
    with start_worker(name="first") as first, start_worker(name="second") as second:
        wait_for_blocking(client, server)
        blocked = first if parked_leases(server, first.process.pid) else second
        jobs = [client.submit("doubling", [n, 0, 0]) for n in range(3)]
        os.killpg(blocked.process.pid, signal.SIGKILL)
        jobs += [client.submit("doubling", [n, 0, 0]) for n in range(3, 6)]
        assert [job.result(timeout=20).prediction for job in jobs] == [2 * n for n in range(6)]
        wait_until(
            lambda: not parked_leases(server, blocked.process.pid), 30
        )  # found expired twice, ten seconds apart


def test_a_job_that_arrives_at_a_frozen_worker_runs_once_on_another(
    start_worker: WorkerStarter, server: redis.Redis, client: Client
) -> None:
    with start_worker(name="first") as first, start_worker(name="second") as second:
        wait_for_blocking(client, server)
        blocked = first if parked_leases(server, first.process.pid) else second
        signal_worker(blocked.process.pid, signal.SIGSTOP)
        try:
            jobs = [client.submit("doubling", [n, 0, 0]) for n in range(4)]  # one of them to the frozen worker
            assert [job.result(timeout=LEASE_SECONDS + 10).prediction for job in jobs] == [2 * n for n in range(4)]
        finally:
            signal_worker(blocked.process.pid, signal.SIGCONT)
        wait_for_blocking(client, server)
        assert sorted(count_attempts(job) for job in jobs) in ([0, 0, 0, 0], [0, 0, 0, 1])


def test_if_redis_refuses_blmove_notifications_wake_the_worker(
    start_worker: WorkerStarter, server: redis.Redis, client: Client
) -> None:
    server.execute_command("ACL", "SETUSER", "default", "-blmove")
    with start_worker(*rare_polls.OPTIONS, **rare_polls.SETTINGS) as worker:
        for n in range(8):
            time.sleep(0.03 * n)
            client.predict("doubling", [1, 0, 0], timeout=20)
        assert worker.log.read_text().count("Redis refuses BLMOVE") == 1


def test_a_job_under_a_lease_that_was_ended_is_claimed_anew(server: redis.Redis) -> None:
    blocking = BlockingClaim(KEYS, 10, time.monotonic)
    numbers, limits = itertools.count(1), [ClaimLimits(queue="predict.doubling")]
    for _ in range(2):
        lease = Lease(name="me/0", queue="predict.doubling", origins=((1, 1),))
        blocking.record_claim(Claim(lease=lease, queued_messages=[b""]))
    lease = blocking.offer(limits, lambda: f"me/{next(numbers)}")
    assert lease
    server.lpush("predict.doubling", b"job")
    connection = server.connection_pool.get_connection()
    commands = blocking.commands(lease)  # the lease was never in `Keys.leases`
    connection.send_packed_command(connection.pack_commands(commands))
    assert blocking.receive([connection.read_response() for _ in commands]) is None
    claim = Leases(server, KEYS).claim("me/9", limits, lease_ms=1000, parked=blocking.offer(limits, str))
    assert isinstance(claim, Claim)
    assert claim.queued_messages == [b"job"]
    assert server.zrange(KEYS.leases, 0, -1) == [claim.lease.member.encode()]
    server.connection_pool.release(connection)
