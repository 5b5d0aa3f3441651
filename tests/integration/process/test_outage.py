"""Whatever happens to Redis and the network: a worker goes on by itself, and every job has one outcome."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import redis

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from tests.chaos.proxy import Proxy
from tests.support.claim_models import SLEEP, add_model, count_claims, running_worker
from tests.support.connections import MODEL
from tests.support.faults import repeatedly
from tests.support.redis_servers import find_server
from tests.support.waiting import wait_until

LEASE = 2
#: Seconds after a trouble in which a worker must be at work again.
SOON = 8.0


class Place(NamedTuple):
    """A Redis, a proxy before it, and a worker that sees Redis through the proxy."""

    server: EmbeddedRedis
    proxy: Proxy
    worker: Child

    def tail(self) -> str:
        return self.worker.log.read_text()[-4000:]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("trouble")
    # The delay is for each key that is loaded: a restart of one with thousands takes seconds.
    with (
        EmbeddedRedis("--key-load-delay", "500", server=find_server("path")) as server,
        Proxy(server.port) as proxy,
    ):
        more = {"HEADRACE_LEASE": str(LEASE), "HEADRACE_COMMAND_TIMEOUT": "1", "HEADRACE_CONNECT_TIMEOUT": "1"}
        with running_worker(
            url=proxy.url, models=add_model(folder, max_batch_instances=8), folder=folder, **more
        ) as worker:
            yield Place(server, proxy, worker)


@pytest.fixture
def admin(place: Place) -> Iterator[redis.Redis]:
    """One who does harm."""
    with redis.Redis.from_url(place.server.url, client_name="admin") as admin:
        yield admin


def outlasts(place: Place, admin: redis.Redis, harm: Callable[[], Any], soon: float = SOON) -> None:
    """Jobs under way while harm is done have their outcomes soon after; the worker is the same and holds none."""
    former = place.worker.process.pid
    with Client(place.server.url) as client:
        jobs = client.submit_many(MODEL, [[n, SLEEP, 0.02] for n in range(60)])
        wait_until(lambda: count_claims(admin), describe=place.tail)
        harm()
        began = time.monotonic()
        late = client.submit(MODEL, [21, 0, 0])
        assert late.result(timeout=30).prediction == 42, place.tail()
        told = {job.id: job.result(timeout=0).prediction for job in client.as_completed(jobs, timeout=30)}
        assert time.monotonic() - began < soon, place.tail()
        assert [told[job.id] for job in jobs] == [2 * n for n in range(60)]
    assert place.worker.process.poll() is None
    assert place.worker.process.pid == former
    wait_until(lambda: not count_claims(admin), 10, place.tail)
    assert not admin.exists("headrace:dead")
    assert not list(admin.scan_iter("headrace:lease:*"))


def test_a_crash_and_a_restart(place: Place, admin: redis.Redis):
    def harm() -> None:
        place.server.kill()
        time.sleep(0.3)  # it is away for a while
        place.server.start()

    outlasts(place, admin, harm)


def test_a_restart_that_has_much_to_load(place: Place, admin: redis.Redis):
    def harm() -> None:
        with admin.pipeline(transaction=False) as pipeline:
            for at in range(3000):
                pipeline.set(f"other:{at}", "x", ex=60)
            pipeline.execute()
        place.server.kill()
        place.server.start()

    outlasts(place, admin, harm)


def test_the_killing_of_every_connection(place: Place, admin: redis.Redis):
    def kill() -> None:
        for kind in ("normal", "pubsub"):
            admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def harm() -> None:
        with repeatedly(kill, every=0.1):
            time.sleep(2)

    outlasts(place, admin, harm)


def test_connections_cut_by_the_network(place: Place, admin: redis.Redis):
    def harm() -> None:
        place.proxy.cut(refuse=True)
        time.sleep(0.5)
        place.proxy.accept()

    outlasts(place, admin, harm)


def test_connections_that_fell_silent(place: Place, admin: redis.Redis):
    outlasts(place, admin, place.proxy.go_silent, soon=10 + SOON)  # a claim is given up after 10 s of silence


def test_forgotten_scripts(place: Place, admin: redis.Redis):
    def harm() -> None:
        with repeatedly(admin.script_flush, every=0.005):
            time.sleep(1)

    outlasts(place, admin, harm)


def test_a_primary_that_is_a_replica_for_a_while(place: Place, admin: redis.Redis):
    def harm() -> None:
        admin.replicaof("127.0.0.1", "1")
        time.sleep(1)
        admin.replicaof("NO", "ONE")

    outlasts(place, admin, harm)


def test_a_redis_that_is_full_for_a_while(place: Place, admin: redis.Redis):
    def harm() -> None:
        admin.config_set("maxmemory", "1")
        time.sleep(1)
        admin.config_set("maxmemory", "0")

    outlasts(place, admin, harm)


def test_a_worker_that_comes_back_to_a_full_redis(place: Place, admin: redis.Redis):
    def harm() -> None:
        admin.config_set("maxmemory", "1")
        place.proxy.cut()
        time.sleep(1.5)
        admin.config_set("maxmemory", "0")

    outlasts(place, admin, harm)


def test_a_redis_that_answers_nobody_for_a_while(place: Place, admin: redis.Redis):
    def harm() -> None:
        process = place.server._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        time.sleep(LEASE + 1)  # longer than leases and commands last
        process.send_signal(signal.SIGCONT)

    outlasts(place, admin, harm)


def test_a_lost_reply_to_a_claim_and_to_a_publish(place: Place, admin: redis.Redis):
    with Client(place.server.url) as client:
        job = client.submit(MODEL, [1, SLEEP, 0.5])
        wait_until(lambda: count_claims(admin), describe=place.tail)
        place.proxy.lose_reply(job.id.encode())  # what is published bears the id
        assert job.result(timeout=10).prediction == 2
        assert place.proxy.wait_lost()

    def harm() -> None:
        place.proxy.lose_reply(b"EVALSHA")

    outlasts(place, admin, harm)
