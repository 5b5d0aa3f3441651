"""Redis and the network fail in many ways: a worker goes on by itself, and every job has one outcome."""

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
from tests.support.functions import load_functions
from tests.support.redis_servers import find_server
from tests.support.waiting import DEADLINE, wait_until

LEASE = 2


class Site(NamedTuple):
    """A Redis, a proxy before it, and a worker that is connected through the proxy."""

    server: EmbeddedRedis
    proxy: Proxy
    worker: Child

    def log_tail(self) -> str:
        return self.worker.log.read_text()[-4000:]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("outage")
    # Redis waits for each key that it loads: its restart with thousands of keys takes seconds.
    with (
        EmbeddedRedis("--key-load-delay", "500", server=find_server("path")) as server,
        Proxy(server.port) as proxy,
    ):
        with redis.Redis.from_url(server.url) as loader:
            load_functions(loader)  # as in production; the chaos suite injects the same faults without them
        settings = {"HEADRACE_LEASE": str(LEASE), "HEADRACE_COMMAND_TIMEOUT": "1", "HEADRACE_CONNECT_TIMEOUT": "1"}
        with running_worker(
            url=proxy.url, models=add_model(folder, max_batch_instances=8), folder=folder, **settings
        ) as worker:
            yield Site(server, proxy, worker)


@pytest.fixture
def admin(site: Site) -> Iterator[redis.Redis]:
    """The connection that causes the outages."""
    with redis.Redis.from_url(site.server.url, client_name="admin") as admin:
        yield admin


def assert_recovers(site: Site, admin: redis.Redis, outage: Callable[[], Any]) -> None:
    """Cause an outage while jobs run. Assert that all have their outcomes after it, from the same worker.

    How soon is measured by the chaos suite: the bounds here are for a worker that never recovers.
    """
    former = site.worker.process.pid
    with Client(site.server.url) as client:
        jobs = client.submit_many(MODEL, [[number, SLEEP, 0.02] for number in range(60)])
        wait_until(lambda: count_claims(admin), describe=site.log_tail)
        outage()
        further_job = client.submit(MODEL, [21, 0, 0])
        assert further_job.result(timeout=DEADLINE).prediction == 42, site.log_tail()
        outcomes = client.as_completed(jobs, timeout=DEADLINE)
        predictions = {job.id: job.result(timeout=0).prediction for job in outcomes}
        assert [predictions[job.id] for job in jobs] == [2 * number for number in range(60)]
    assert site.worker.process.poll() is None
    assert site.worker.process.pid == former
    wait_until(lambda: not count_claims(admin), 10, site.log_tail)
    assert not admin.exists("headrace:dead")
    assert not list(admin.scan_iter("headrace:lease:*"))


def test_redis_crashes_and_restarts(site: Site, admin: redis.Redis):
    def outage() -> None:
        site.server.kill()
        time.sleep(0.3)
        site.server.start()

    assert_recovers(site, admin, outage)


def test_redis_restarts_and_loads_many_keys(site: Site, admin: redis.Redis):
    def outage() -> None:
        with admin.pipeline(transaction=False) as pipeline:
            for number in range(3000):
                pipeline.set(f"other:{number}", "x", ex=60)
            pipeline.execute()
        site.server.kill()
        site.server.start()

    assert_recovers(site, admin, outage)


def test_every_connection_is_killed_repeatedly(site: Site, admin: redis.Redis):
    def kill() -> None:
        for kind in ("normal", "pubsub"):
            admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def outage() -> None:
        with repeatedly(kill, every=0.1):
            time.sleep(2)

    assert_recovers(site, admin, outage)


def test_the_network_cuts_all_connections(site: Site, admin: redis.Redis):
    def outage() -> None:
        site.proxy.cut(refuse=True)
        time.sleep(0.5)
        site.proxy.accept()

    assert_recovers(site, admin, outage)


def test_connections_go_silent(site: Site, admin: redis.Redis):
    assert_recovers(site, admin, site.proxy.go_silent)


def test_redis_forgets_its_scripts(site: Site, admin: redis.Redis):
    def outage() -> None:
        with repeatedly(admin.script_flush, every=0.005):
            time.sleep(1)

    assert_recovers(site, admin, outage)


def test_the_primary_is_a_replica_for_a_second(site: Site, admin: redis.Redis):
    def outage() -> None:
        admin.replicaof("127.0.0.1", "1")
        time.sleep(1)
        admin.replicaof("NO", "ONE")

    assert_recovers(site, admin, outage)


def test_redis_is_full_for_a_second(site: Site, admin: redis.Redis):
    def outage() -> None:
        admin.config_set("maxmemory", "1")
        time.sleep(1)
        admin.config_set("maxmemory", "0")

    assert_recovers(site, admin, outage)


def test_a_worker_reconnects_to_a_full_redis(site: Site, admin: redis.Redis):
    def outage() -> None:
        admin.config_set("maxmemory", "1")
        site.proxy.cut()
        time.sleep(1.5)
        admin.config_set("maxmemory", "0")

    assert_recovers(site, admin, outage)


def test_redis_answers_nothing_for_longer_than_a_lease(site: Site, admin: redis.Redis):
    def outage() -> None:
        process = site.server._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        time.sleep(LEASE + 1)  # longer than a lease and a command's timeout
        process.send_signal(signal.SIGCONT)

    assert_recovers(site, admin, outage)


def test_the_replies_to_a_claim_and_to_a_publish_are_lost(site: Site, admin: redis.Redis):
    with Client(site.server.url) as client:
        job = client.submit(MODEL, [1, SLEEP, 0.5])
        wait_until(lambda: count_claims(admin), describe=site.log_tail)
        site.proxy.lose_reply(job.id.encode())  # the reply to the publish, which holds the id
        assert job.result(timeout=10).prediction == 2
        assert site.proxy.wait_lost()

    def outage() -> None:
        site.proxy.lose_reply(b"FCALL")

    assert_recovers(site, admin, outage)
