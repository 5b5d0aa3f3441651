"""Redis and the network fail in many ways: a worker goes on by itself, and every job has one outcome."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from headrace import Client
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child
from tests.chaos.proxy import Proxy
from tests.support import failing_dns
from tests.support.claim_models import SLEEP, add_model, count_claims, running_worker
from tests.support.connections import MODEL
from tests.support.faults import repeatedly
from tests.support.functions import load_functions
from tests.support.redis_servers import find_server
from tests.support.served_worker import describe_work, is_clean
from tests.support.silent_redis import dropping_port
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
    assert not admin.exists("headrace:dead")
    wait_until(lambda: is_clean(admin), 10, lambda: describe_work(admin))


def test_redis_crashes_and_restarts(site: Site, admin: redis.Redis):
    def outage() -> None:
        site.server.kill()
        time.sleep(0.3)
        site.server.start()

    assert_recovers(site, admin, outage)


def test_redis_is_away_for_longer_than_all_retries_of_a_command(site: Site, admin: redis.Redis):
    logged = len(site.worker.log.read_text().splitlines())

    def outage() -> None:
        site.server.kill()
        time.sleep(4)
        site.server.start()

    assert_recovers(site, admin, outage)
    events = [json.loads(line)["event"] for line in site.worker.log.read_text().splitlines()[logged:]]
    # All loops together log each cause once: through the proxy, connections end in different ways.
    waits = [event for event in events if "Waiting for it" in event]
    assert 0 < len(waits) == len(set(waits))
    assert sum("Redis answers again, after" in event for event in events) == 1
    assert not [event for event in events if "Traceback" in event]
    assert len(events) < 20


def test_nothing_answers_connection_requests(site: Site, admin: redis.Redis):
    def outage() -> None:
        site.server.kill()
        site.proxy.cut(refuse=True)
        with dropping_port(site.server.port):
            site.proxy.accept()  # its own connections to the server are not answered
            time.sleep(3)
        site.server.start()

    assert_recovers(site, admin, outage)


def test_the_password_is_changed_and_changed_back(site: Site, admin: redis.Redis):
    logged = len(site.worker.log.read_text())

    def outage() -> None:
        admin.acl_setuser("default", enabled=True, reset_passwords=True, passwords="+another-password")
        for kind in ("normal", "pubsub"):
            admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        time.sleep(3)
        admin.acl_setuser("default", enabled=True, nopass=True)

    assert_recovers(site, admin, outage)
    text = site.worker.log.read_text()[logged:]
    assert text.count("refuses the user or password") == 1
    assert "another-password" not in text


def test_the_name_of_redis_is_not_found(tmp_path: Path):
    with EmbeddedRedis(server=find_server("path")) as server, Proxy(server.port) as proxy:
        url = proxy.url.replace("127.0.0.1", "redis.example")
        unknown = tmp_path / "unknown"
        settings = {"HEADRACE_LEASE": str(LEASE), failing_dns.UNKNOWN: str(unknown)}
        include = ("--include", "tests.support.failing_dns")
        models = add_model(tmp_path, max_batch_instances=8)
        with (
            running_worker(*include, url=url, models=models, folder=tmp_path, **settings) as worker,
            redis.Redis.from_url(server.url) as admin,
        ):

            def outage() -> None:
                unknown.touch()
                proxy.cut()
                time.sleep(3)
                assert "Temporary failure in name resolution" in worker.log.read_text()
                unknown.unlink()

            assert_recovers(Site(server, proxy, worker), admin, outage)


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


@pytest.mark.long
def test_nothing_piles_up_over_many_reconnects(site: Site, admin: redis.Redis):
    def run_jobs() -> tuple[int, int, int]:
        """Keep both processes busy; return the most claims at once, and the worker's connections and threads."""
        with Client(site.server.url) as client:
            jobs = client.submit_many(MODEL, [[number, SLEEP, 0.1] for number in range(40)])
            most_claims = 0
            while jobs[-1].status() != "success":
                most_claims = max(most_claims, count_claims(admin))
            assert len(list(client.as_completed(jobs, timeout=DEADLINE))) == 40
        connections = [client for client in admin.client_list() if client["name"] != "admin"]
        return most_claims, len(connections), len(_threads(site))

    site.proxy.cut()
    claims, connections, threads = run_jobs()
    assert claims == 2  # a prefetch of one claim for each of the two processes
    for _ in range(4):
        assert site.proxy.cut() > 0
        last = run_jobs()
    assert last[0] == 2
    assert last[1] <= connections + 1
    assert last[2] <= threads + 1


def _threads(site: Site) -> list[Any]:
    """Return the threads of the worker's main process."""
    return list(Path(f"/proc/{site.worker.process.pid}/task").iterdir())


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
