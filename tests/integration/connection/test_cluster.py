"""A Redis Cluster: any node leads to the one that serves the slot, through failovers and a slot that moves."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest

from headrace import AsyncClient, BrokerUnavailable, Client, HeadraceError, NotDurable, SettingError, Settings
from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.published import publish_contract
from headrace.connection.celery import create_celery_app
from headrace.connection.connect import connect
from headrace.wire.keys import Keys
from headrace.wire.queues import TASK
from headrace_worker.local.stack import Child, start_flower
from headrace_worker.telemetry.queue_metrics import QueueCollector
from tests.support.certificates import make_authority, speaks_tls, tls_options
from tests.support.claim_models import add_model, count_claims, running_worker
from tests.support.command import headrace
from tests.support.connections import MODEL, close_pools, exercise_celery_app, exercise_client, free_port
from tests.support.redis_cluster import PREFIX, RedisCluster
from tests.support.redis_servers import find_server
from tests.support.submitting import CLIENTS, ClientName
from tests.support.waiting import wait_until

QUEUE = Keys(PREFIX).lists(f"predict.{MODEL}")[0]
ROW = [21, 0, 0]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster(find_server("valkey"), "--appendfsync", "always") as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").owner().db.flushall()


def submit_to(url: str) -> str:
    with Client(url, check=False) as client:
        return client.submit(MODEL, ROW).id


async def submit_async(url: str) -> str:
    async with AsyncClient(url, check=False) as client:
        return (await client.submit(MODEL, ROW)).id


def test_the_address_of_any_node_leads_to_the_one_that_serves_the_slot(cluster: RedisCluster) -> None:
    for node in cluster.nodes:
        url = cluster.url_of([node])
        assert submit_to(url)
        assert asyncio.run(submit_async(url))
    assert cluster.owner().db.llen(QUEUE) == 2 * len(cluster.nodes)


def test_nodes_that_are_away_are_skipped_and_all_of_them_are_named(cluster: RedisCluster) -> None:
    port, other = free_port(), free_port()
    assert submit_to(f"cluster://127.0.0.1:{port},127.0.0.1:{cluster.nodes[0].port}")
    with pytest.raises(BrokerUnavailable, match=f"a cluster .127.0.0.1:{port}, 127.0.0.1:{other}.*slot") as error:
        submit_to(f"cluster://:hunter2@127.0.0.1:{port},127.0.0.1:{other}")
    assert "hunter2" not in str(error.value)
    with pytest.raises(BrokerUnavailable, match="no node names a primary"):
        asyncio.run(submit_async(f"cluster://127.0.0.1:{port}"))


def test_a_server_of_its_own_and_a_prefix_without_a_hash_tag_are_refused(redis_url: str) -> None:
    url = redis_url.replace("redis:", "cluster:")
    for submit in (submit_to, lambda url: asyncio.run(submit_async(url))):
        with pytest.raises(BrokerUnavailable, match="not in cluster mode; write redis://"):
            submit(url)
    for settings in (Settings(redis_url=url, key_prefix="shop:"), Settings(redis_url=url, key_prefix="{}shop:")):
        for make in (connect, create_celery_app):
            with pytest.raises(SettingError, match=r"hash tag.*\{shop\}:"):
                make(settings)


def test_a_redis_url_of_a_node_is_told_to_be_a_cluster(cluster: RedisCluster) -> None:
    url = f"redis://127.0.0.1:{cluster.others()[0].port}"
    for submit in (submit_to, lambda url: asyncio.run(submit_async(url))):
        with pytest.raises(
            BrokerUnavailable, match=r"node of a Redis Cluster.*\((MOVED|CROSSSLOT).*write cluster://"
        ):
            submit(url)
    prefixed = Settings(redis_url=url, key_prefix=PREFIX)
    with (
        Client(settings=prefixed, check=False) as client,
        pytest.raises(BrokerUnavailable, match=r"\(MOVED 12929"),
    ):
        client.submit(MODEL, ROW)
    result = headrace("doctor", "--url", url)
    assert result.returncode == 1
    assert "critical: cluster-enabled is yes, and the URL names one node" in result.stdout
    assert "write cluster://HOST:PORT in HEADRACE_REDIS_URL" in result.stdout


def publish_model(url: str) -> None:
    """Publish the contract of the model as a worker does."""
    contract = Contract(model=MODEL, version="1", input=Array(shape=(3,)), methods={"predict": Output(shape=())})
    with connect(Settings(redis_url=url)) as db:
        publish_contract(db, Keys(PREFIX), contract)


def test_commands_use_the_cluster(cluster: RedisCluster, tmp_path: Path) -> None:
    url = cluster.url_of(cluster.others()[:1])
    doctor = headrace("doctor", "--json", "--url", url)
    findings = [json.loads(line) for line in doctor.stdout.splitlines()]
    assert {finding["subject"] for finding in findings if finding["check"] == "redis"} <= {
        "appendfsync", "min-replicas-to-write"
    }  # fmt: skip
    assert "a cluster (127.0.0.1:" in doctor.stderr
    publish_model(url)
    submitted = headrace("submit", MODEL, "[1, 2, 3]", "--url", url)
    assert submitted.returncode == 0, submitted.stderr
    assert cluster.owner().db.llen(QUEUE) == 1
    queues = headrace("queues", "--json", "--url", url)
    assert [json.loads(line)["waiting"] for line in queues.stdout.splitlines()] == [1], queues.stderr
    dead = headrace("dead", "list", "--url", url)
    assert dead.returncode == 0, dead.stderr


def test_a_job_is_durable_once_a_replica_has_it(cluster: RedisCluster) -> None:
    with Client(cluster.url, check=False) as client:
        job = client.submit(MODEL, ROW, durable=True)
    replica = cluster.replica()
    replica.db.execute_command("READONLY")
    assert replica.db.llen(QUEUE) == 1
    assert job.id
    with (
        RedisCluster(find_server("path"), replicas=False) as alone,
        Client(alone.url, check=False) as client,
        pytest.raises(NotDurable, match="the cluster chooses the primary, and this one has no replica"),
    ):
        client.submit(MODEL, ROW, durable=True)


@pytest.mark.parametrize("client_name", CLIENTS)
def test_a_client_that_was_idle_during_a_failover_submits_durable_jobs_to_the_new_primary(
    cluster: RedisCluster, client_name: ClientName
) -> None:
    def fail_over() -> None:
        cluster.fail_over()
        wait_until(lambda: cluster.owner().db.info("replication")["connected_slaves"] == 1)
        wait_until(lambda: cluster.owner().db.info("replication")["slave0"]["state"] == "online")

    async def submit_async() -> None:
        async with AsyncClient(cluster.url, check=False) as client:
            await client.submit(MODEL, ROW, durable=True)
            fail_over()
            await client.submit(MODEL, ROW, durable=True)

    if client_name == "AsyncClient":
        asyncio.run(submit_async())
    else:
        with Client(cluster.url, check=False) as client:
            client.submit(MODEL, ROW, durable=True)
            fail_over()
            client.submit(MODEL, ROW, durable=True)
    assert cluster.owner().db.llen(QUEUE) == 2


def test_a_new_client_waits_while_the_slot_moves(cluster: RedisCluster) -> None:
    with Client(cluster.url, check=False) as client:
        client.submit_many(MODEL, [ROW] * 100)
    target = cluster.others()[0]
    move = threading.Thread(target=cluster.move_slot, args=(target,), kwargs={"pause": 0.01})
    move.start()
    try:
        wait_until(lambda: target.db.dbsize() or not move.is_alive())
        assert submit_to(cluster.url)
        assert asyncio.run(submit_async(cluster.url))
    finally:
        move.join()
    assert target.db.llen(QUEUE) == 102
    assert cluster.owner() is target


class Load:
    """A thread that submits durable jobs one by one, and collects the ids of those that were confirmed."""

    def __init__(self, url: str) -> None:
        self.confirmed: list[str] = []
        self.errors: list[HeadraceError] = []
        self.not_durable, self.tried_at = 0, 0.0
        self._url, self._is_over = url, threading.Event()
        self._thread = threading.Thread(target=self._submit)

    def _submit(self) -> None:
        with Client(settings=Settings(redis_url=self._url, command_timeout=20), check=False) as client:
            while not self._is_over.is_set():
                self.tried_at = time.monotonic()
                try:
                    self.confirmed.append(client.submit(MODEL, ROW, durable=True).id)
                except NotDurable:
                    self.not_durable += 1
                    time.sleep(0.05)  # the replica is away
                except HeadraceError as error:
                    self.errors.append(error)

    def go_on(self, jobs: int) -> None:
        """Wait until this many further jobs were confirmed."""
        target = len(self.confirmed) + jobs
        wait_until(lambda: len(self.confirmed) >= target, 120, self._describe)

    def _describe(self) -> str:
        tried = f"the last job was sent {time.monotonic() - self.tried_at:.1f} s ago"
        return (
            f"{len(self.confirmed)} confirmed, {self.not_durable} times not durable; {tried}; {self.errors[-1:]}"
        )

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def assert_each_has_an_outcome(url: str, ids: list[str]) -> None:
    """Check that each job has its outcome, and that nothing is left in the lists and leases."""
    with Client(url, check=False) as client:
        jobs = [client.job(job) for job in ids]
        predictions = {job.id: job.result(timeout=0).prediction for job in client.as_completed(jobs, timeout=60)}
        assert predictions == dict.fromkeys(ids, 42)
    with connect(Settings(redis_url=url)) as db:
        wait_until(lambda: db.llen(QUEUE) == count_claims(db, PREFIX) == 0)


@pytest.mark.timeout(400)
def test_client_and_worker_go_on_through_failovers_and_while_the_slot_moves(
    cluster: RedisCluster, tmp_path: Path
) -> None:
    """One worker for several changes, as it takes seconds to start."""
    url = cluster.url_of(cluster.others()[:1])
    settings = Settings(redis_url=url)
    environ = {"HEADRACE_LEASE": "2"}
    with running_worker(url=url, models=add_model(tmp_path), folder=tmp_path, **environ) as worker:
        exercise_client(settings)
        exercise_celery_app(settings)
        with Load(cluster.url) as load:
            load.go_on(20)
            cluster.fail_over()
            load.go_on(20)
            cluster.move_slot(cluster.others()[0], pause=0.01)
            load.go_on(20)
            cluster.move_slot(cluster.others()[0])
            load.go_on(20)
        assert load.errors == []
        assert_each_has_an_outcome(url, load.confirmed)
        assert worker.process.poll() is None
        log = worker.log.read_text()
        exercise_celery_app(settings)
    assert "Traceback" not in log.replace("Traceback (most recent call last)", "", 12), log
    strays = [
        key
        for node in cluster.nodes
        if node.is_primary()
        for key in node.db.keys("*")
        if not key.startswith(PREFIX.encode())
    ]
    assert strays == []


@pytest.mark.long
def test_a_worker_on_a_node_that_serves_another_slot_says_so_once(cluster: RedisCluster, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{cluster.others()[0].port}"
    environ = {
        "HEADRACE_REDIS_URL": url,
        "HEADRACE_MODELS": str(add_model(tmp_path)),
        "HEADRACE_TRUST_PICKLE": "true",
    }
    worker = Child("worker", ["headrace.cli", "worker", "--concurrency", "1"], environ, tmp_path / "worker.log")
    try:
        wait_until(lambda: worker.check() or "Waiting for it" in worker.log.read_text())
        time.sleep(5)  # it tries again every second or two
        worker.check()
    finally:
        worker.stop()
    lines = worker.log.read_text().splitlines()
    named = [line for line in lines if "is a node of a Redis Cluster" in line]
    assert 1 <= len(named) <= 2, lines  # the reader of aliases and the one of jobs
    assert all("MOVED" in line and "write cluster://HOST:PORT" in line for line in named)
    assert not [line for line in lines if "Traceback" in line or "damaged" in line]
    assert len(lines) < 25


@pytest.mark.long
def test_no_confirmed_job_is_lost_when_the_node_is_killed(tmp_path: Path) -> None:
    with RedisCluster(find_server("path")) as cluster:
        url = cluster.url_of(cluster.others())
        with running_worker(url=url, models=add_model(tmp_path), folder=tmp_path, HEADRACE_LEASE="2"):
            with Load(url) as load:
                for _ in range(2):
                    load.go_on(50)
                    owner = cluster.owner()
                    owner.server.kill()
                    wait_until(lambda: cluster.owner() is not owner)  # noqa: B023  # called at once
                    owner.server.start()
                    wait_until(cluster.replica)
                    load.go_on(50)
            assert load.errors == []
            assert_each_has_an_outcome(url, load.confirmed)


def test_functions_of_the_node_follow_it_and_a_node_without_them_gets_scripts(cluster: RedisCluster) -> None:
    installed = json.loads(headrace("redis", "install", "--json", "--url", cluster.url).stdout)
    count = len(installed["added"]) + len(installed["present"])
    wait_until(lambda: [len(node.db.function_list()) for node in cluster.nodes] == [count] * 6)
    for node in cluster.nodes:
        node.db.config_resetstat()
    with Client(cluster.url, check=False) as client:
        client.submit(MODEL, ROW)
        cluster.fail_over()
        client.submit(MODEL, ROW)
        assert calls(cluster.owner().db, "fcall") == 1
        for node in cluster.nodes:
            if node.is_primary() and node is not cluster.owner():
                node.call("FUNCTION FLUSH")
                node.db.script_flush()
        cluster.move_slot(cluster.others()[0])
        client.submit(MODEL, ROW)
        assert calls(cluster.owner().db, "eval") == 1
    assert cluster.owner().db.llen(QUEUE) == 3


def calls(db: redis.Redis, command: str) -> int:
    return int(db.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


def test_users_have_passwords_and_nodes_may_name_no_host(tmp_path: Path) -> None:
    options = ("--cluster-preferred-endpoint-type", "unknown-endpoint", "--requirepass", "p@ss")
    with RedisCluster(find_server("falkordb"), *options, replicas=False, login={"password": "p@ss"}) as cluster:
        urls = [f"cluster://:p%40ss@127.0.0.1:{node.port}/0" for node in cluster.nodes]
        for url in urls:
            assert submit_to(url)
        file = tmp_path / "url"
        file.write_text(f"{urls[0]}\n")
        publish_model(urls[1])
        result = headrace("submit", MODEL, "[1, 2, 3]", HEADRACE_REDIS_URL_FILE=str(file))
        assert result.returncode == 0, result.stderr
        assert cluster.owner().db.llen(QUEUE) == 4
        with pytest.raises(BrokerUnavailable, match="refuses the user or password"):
            submit_to(f"cluster://:wrong@127.0.0.1:{cluster.nodes[0].port}")


def test_the_nodes_are_reached_over_tls(tmp_path: Path) -> None:
    server = find_server("path")
    if not speaks_tls(server):
        pytest.skip(f"{server} is built without TLS")
    authority = make_authority(tmp_path)
    with RedisCluster(server, *tls_options(authority), replicas=False, tls=True) as cluster:
        for node in cluster.nodes:
            url = f"cluster://127.0.0.1:{node.tls_port}/?ssl_ca_certs={authority / 'ca.pem'}"
            assert submit_to(url)
            assert asyncio.run(submit_async(url))
            with create_celery_app(Settings(redis_url=url)) as app:
                app.send_task(TASK, args=[MODEL, [[5, 0, 0]]], queue=f"predict.{MODEL}", ignore_result=True)
                app.backend.client.ping()
                app.backend.client.connection_pool.disconnect()
                close_pools(app)
        assert cluster.owner().db.llen(QUEUE) == 9
        with pytest.raises(BrokerUnavailable, match="no node names a primary"):
            submit_to(f"cluster://127.0.0.1:{cluster.nodes[0].tls_port}?ssl_cert_reqs=required")


@pytest.mark.long
def test_flower_the_exporter_and_a_batch_use_the_cluster(cluster: RedisCluster, tmp_path: Path) -> None:
    url = cluster.url_of(cluster.others()[:1])
    publish_model(url)
    submit_to(url)
    port = free_port()
    flower = start_flower(url, tmp_path, port=port)
    try:
        for path in ("broker", "queues", "models", "dead-letters"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as answer:
                page = answer.read().decode()
            if path == "broker":
                assert re.search(rf"predict\.{MODEL}</td>\s*<td[^>]*>\s*1\s*<", page), page
    finally:
        flower.stop()
    registry, settings = CollectorRegistry(), Settings(redis_url=url)
    registry.register(QueueCollector(lambda: connect(settings), settings.key_prefix))
    assert f'headrace_queue_waiting{{model="{MODEL}",priority="0"}} 1.0' in generate_latest(registry).decode()
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(f"[{n}, 0, 0]\n" for n in range(50)))
    with running_worker(url=url, models=add_model(tmp_path), folder=tmp_path):
        result = headrace("batch", MODEL, str(file), "-o", str(out), "--url", url)
        assert result.returncode == 0, result.stderr
    assert len(out.read_text().splitlines()) == 50
