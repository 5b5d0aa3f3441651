"""The Redis users of docs/reference/acl.md may do their work, and nothing else."""

from __future__ import annotations

import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from celery import chain, chord
from prometheus_client import CollectorRegistry, generate_latest
from redis.exceptions import NoPermissionError

from headrace import BrokerUnavailable, Client, JobCancelled, Settings
from headrace.bulk import cancel_run, failures_of, list_runs, make_run, read_run, resume_run, submit_run
from headrace.catalog.aliases import CANARY, Alias, Aliases, encode_alias
from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.published import publish_contract
from headrace.catalog.workers import publish_status
from headrace.clock import utc_now
from headrace.connection.celery import create_celery_app
from headrace.connection.commands import Pipeline, execute, run
from headrace.connection.connect import connect
from headrace.results.cancellation import carry_out_requests
from headrace.results.publish import publish_command
from headrace.wire.keys import Keys
from headrace_worker.drift.psi import add_commands, measure_drift
from headrace_worker.local.stack import start_flower
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.canary import CanaryJudge, CanaryLimits
from headrace_worker.rollout.promotion import Promoter
from headrace_worker.rollout.version_stats import VersionStats
from headrace_worker.settings import WorkerSettings
from headrace_worker.store.garbage import GarbageCollector
from headrace_worker.store.store import Store
from headrace_worker.telemetry.queue_metrics import QueueCollector
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support.acl import users
from tests.support.answering_worker import success
from tests.support.bulk_site import KEYS, BulkSite, add_bulk_model
from tests.support.claim_models import SLEEP, add_model, count_claims, running_worker
from tests.support.command import headrace
from tests.support.connections import MODEL, exercise_client, free_port, kill_pool, running_server
from tests.support.functions import load_functions
from tests.support.redis_servers import find_server
from tests.support.stored_dead_letters import crashed_attempt, make_letter, store_letter
from tests.support.waiting import wait_until

#: Commands that are optional: redis-py sets its name and version, and a worker checks the server when it starts.
OPTIONAL = {"client|setinfo", "info", "config|get"}


#: Run a test on Redis 7 and on Valkey.
ON_VALKEY_TOO = pytest.mark.parametrize("port", ["path", "valkey"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a Redis 7, or the named server, with the users of the page and an admin. Return its port."""
    server = find_server(getattr(request, "param", "path"))
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    (folder / "users.acl").write_text("\n".join([*users(), "user admin on >admin ~* &* +@all", ""]))
    admin = redis.Redis(port=port, username="admin", password="admin")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--aclfile", "users.acl"]
    command = [server, *options]
    with running_server(command, folder, "redis", admin):
        load_functions(admin)
        yield port


@pytest.fixture
def admin(port: int) -> Iterator[redis.Redis]:
    with redis.Redis(port=port, username="admin", password="admin", decode_responses=True) as admin:
        admin.execute_command("ACL", "LOG", "RESET")
        yield admin
        admin.flushall()


def url(user: str, port: int) -> str:
    return f"redis://{user}:{user.upper()}-PASSWORD@127.0.0.1:{port}/0"


def refused(admin: redis.Redis) -> list[str]:
    """Return the commands that users of the page were refused, without the optional ones."""
    fields = ("username", "reason", "object", "context")
    entries = [entry for entry in admin.acl_log() if entry["object"] not in OPTIONAL]
    return [" ".join(entry[field] for field in fields) for entry in entries]


@ON_VALKEY_TOO
def test_producer_and_worker_may_do_their_work(port: int, admin: redis.Redis, tmp_path: Path) -> None:
    settings = Settings(redis_url=url("producer", port))
    with running_worker(url=url("worker", port), models=add_model(tmp_path), folder=tmp_path) as worker:
        exercise_client(settings)
        with (
            create_celery_app(Settings(redis_url=url("celery", port))) as app,
            Client(settings=settings) as client,
        ):
            job = app.send_task("headrace.predict", args=[MODEL, [[5, 0, 0]]], queue=f"predict.{MODEL}")
            assert job.get(timeout=20)["predictions"] == [10]
            jobs = [app.signature("headrace.predict", [MODEL, [[5, 0, 0]]], immutable=True) for _ in range(4)]
            assert chord(jobs[:2], chain(*jobs[2:])).apply_async().get(timeout=20)["predictions"] == [10]
            app.backend.client.connection_pool.disconnect()
            running = client.submit(MODEL, [1, SLEEP, 0.3], priority=9)
            with redis.Redis(port=port, username="admin", password="admin") as observer:
                wait_until(lambda: count_claims(observer))
            kill_pool(worker)
            assert running.result(timeout=20).prediction == 2
            delayed = client.submit(MODEL, [1, 0, 0], delay=1)
            assert delayed.result(timeout=10).prediction == 2
            with create_celery_app(Settings(redis_url=f"redis://admin:admin@127.0.0.1:{port}/0")) as control:
                assert control.control.inspect(timeout=5, limit=1).ping()
                assert control.control.revoke([running.id], reply=True, timeout=5)
    assert refused(admin) == []


@ON_VALKEY_TOO
def test_a_listener_gets_jobs_gives_up_and_gets_a_replayed_one(port: int, admin: redis.Redis) -> None:
    keys = Keys()
    with (
        Client(url("producer", port), check=False) as producer,
        Client(url("listener", port)) as client,
        Client(url("operator", port)) as operator,
        redis.Redis.from_url(url("worker", port)) as worker,
    ):
        producer.submit_many(MODEL, [[1, 0, 0]] * 3, ids=["a", "b", "c"], listen="orders", notify="orders")
        execute(worker, publish_command(keys, [success("a"), success("b")], ttl=60, now=datetime.now(UTC)))
        with redis.Redis(port=port, username="admin", password="admin") as older:
            older.set(keys.result("c"), '{"status":"REVOKED","task_id":"c"}')  # without an entry
        with client.listen("orders", max_deliveries=1) as listener:
            assert [next(listener).id, next(listener).id, next(listener).id] == ["a", "b", "c"]
            listener.fail("OSError")
        assert operator.dead_letters.replay(ids=["c.listen"]).done == 1
        assert [job.id for job in client.listen("orders", idle=0)] == ["c"]
    assert refused(admin) == []


@ON_VALKEY_TOO
@pytest.mark.parametrize("user", ["producer", "operator", "flower"])
def test_a_bulk_run_is_submitted_carried_out_resumed_and_watched(
    port: int, admin: redis.Redis, tmp_path: Path, user: str
) -> None:
    site = BulkSite(SimpleNamespace(url=url("worker", port)), add_bulk_model(tmp_path), tmp_path)  # type: ignore[arg-type]  # it has the URL
    site.output.mkdir()
    site.input.mkdir()
    producer, steering = (Settings(redis_url=url(name, port)) for name in ("producer", user))
    with site.worker(), connect(producer) as submitting, connect(steering) as client:
        ask = partial(execute, client)
        publish_contract(admin, KEYS, Store(site.models).read_manifest("doubling", "1").contract)
        request = make_run("doubling", "in:rows.parquet", "out:nightly", name="nightly")
        run(partial(execute, submitting), submit_run(KEYS, request, producer, None, contracts=None, now=utc_now()))
        wait_until(lambda: run(ask, read_run(KEYS, "nightly")).state == "failure")  # there is no file
        site.write_table(300)
        run(ask, resume_run(KEYS, "nightly", steering, None))
        wait_until(lambda: run(ask, list_runs(KEYS))[0].state == "success")
        run(ask, cancel_run(KEYS, "nightly"))
        run(ask, failures_of(KEYS, "nightly"))
    assert refused(admin) == []


def test_an_operator_learns_that_a_job_is_lost_and_a_producer_that_it_is_queued(
    port: int, admin: redis.Redis
) -> None:
    with Client(url("producer", port), check=False) as producer:
        job = producer.submit(MODEL, [1, 0, 0], id="nightly-17")
        time.sleep(5.1)  # a new job may be moving
        producer.submit(MODEL, [1, 0, 0], id="nightly-17")
        assert headrace("status", job.id, "--url", url("operator", port)).stdout == "waiting\n"
        admin.delete(f"predict.{MODEL}")
        assert headrace("status", job.id, "--url", url("operator", port)).stdout == "lost\n"
        assert headrace("status", job.id, "--url", url("producer", port)).stdout == "waiting\n"
        assert producer.submit(MODEL, [1, 0, 0], id="nightly-17").id == job.id
    users = {entry.split()[0] for entry in refused(admin)}
    assert users <= {"producer"}  # who may not search the queues


@ON_VALKEY_TOO
@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "requirepass"),
        ("ACL", "LIST"),
        ("MONITOR",),
        ("CLIENT", "LIST"),
        ("SHUTDOWN",),
        ("LRANGE", "predict.doubling", "0", "-1"),
        ("RPOP", "predict.doubling"),
        ("GET", "predict.doubling"),
        ("SET", "predict.doubling", "x"),
        ("DEL", "predict.doubling"),
        ("EVAL", "return redis.call('LRANGE', KEYS[1], 0, -1)", "1", "predict.doubling"),
        ("EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "headrace:contracts:doubling"),
        ("SET", "headrace:contracts:doubling", "x"),
        ("GET", "another-application"),
        ("ZADD", "headrace:leases", "1", "x"),
        ("ZREM", "headrace:leases", "x"),
        ("LRANGE", "headrace:lease:x", "0", "-1"),
        ("LRANGE", "headrace:isolated:predict.doubling", "0", "-1"),
        ("LPUSH", "headrace:isolated:predict.doubling", "x"),
        ("LPUSH", "headrace:retried:predict.doubling", "x"),
        ("LPUSH", "headrace:retried:predict.doubling\x06\x169", "x"),
        ("ZADD", "headrace:delayed:predict.doubling", "1", "5x"),
        ("ZRANGE", "headrace:delayed:predict.doubling", "0", "-1"),
        ("ZRANGE", "headrace:dead:times", "0", "-1"),
        ("HGET", "headrace:dead", "x"),
        ("HGET", "headrace:dead:messages", "x"),
        ("HSET", "headrace:dead", "x", "x"),
        ("HDEL", "headrace:dead:messages", "x"),
        ("PUBLISH", "/0.celery.pidbox", "shut down"),
        ("PSUBSCRIBE", "*"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("user", ["producer", "celery"])
def test_a_producer_may_not(user: str, command: tuple[str, ...], port: int, admin: redis.Redis) -> None:
    admin.lpush("predict.doubling", "a job")
    admin.set("another-application", "a secret")
    with (
        redis.Redis.from_url(url(user, port)) as client,
        pytest.raises(redis.ResponseError, match=r"(?i)permi|ACL|can.t (run|access)"),
    ):
        client.execute_command(*command)


@ON_VALKEY_TOO
@pytest.mark.parametrize(
    "command",
    [("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("GET", "another-application"), ("MONITOR",)],
    ids=" ".join,
)
def test_a_worker_may_not(command: tuple[str, ...], port: int, admin: redis.Redis) -> None:
    with redis.Redis.from_url(url("worker", port)) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)


@ON_VALKEY_TOO
@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("GET", "another-application"),
        ("RPOP", "predict.doubling"),
        ("ZREM", "headrace:leases", "x"),
        ("DEL", "headrace:lease:x"),
        ("LPUSH", "headrace:lease:x", "x"),
        ("HSET", "headrace:dead", "x", "x"),
        ("SET", "headrace:contracts:doubling", "x"),
        ("PUBLISH", "/0.celery.pidbox", "shut down"),
    ],
    ids=" ".join,
)
def test_an_operator_may_not(command: tuple[str, ...], port: int, admin: redis.Redis) -> None:
    with redis.Redis.from_url(url("operator", port)) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)


@ON_VALKEY_TOO
def test_an_operator_may_do_everything_with_dead_letters(port: int, admin: redis.Redis) -> None:
    publish_model(admin)
    admin_raw = redis.Redis(port=port, username="admin", password="admin")
    with admin_raw, Client(settings=Settings(redis_url=url("operator", port))) as client:
        for name, attempts in (("a", ()), ("b", (crashed_attempt(),)), ("c", ())):
            store_letter(admin_raw, make_letter(name, attempts=attempts, model=MODEL, queue=f"predict.{MODEL}"))
        dead = client.dead_letters
        assert [group.count for group in dead.groups()] == [3]
        assert [letter.id for letter in dead.export()] == ["a", "b", "c"]
        assert dead.count().letters == 3
        assert dead.show("a").model == MODEL
        assert dead.replay(ids=["a", "b"], version="1").done == 2
        assert dead.purge(model=MODEL).done == 1
        (depth,) = client.queues()
        assert (depth.waiting, depth.isolated) == (2, 1)
        assert client.job("a").status() == "waiting"
        assert not client.job("a").cancel(timeout=0), "no worker has carried it out"
        with connect(Settings(redis_url=url("worker", port))) as worker:
            requests = carry_out_requests(Keys(), ttl=60, now=datetime.now(UTC))
            assert run(partial(execute, worker), requests) == 1
        assert client.job("a").cancel()
        with pytest.raises(JobCancelled):
            client.job("a").result(timeout=5)
    assert refused(admin) == []


def test_an_operator_sees_the_location_of_a_job_and_a_producer_only_its_status(
    port: int, admin: redis.Redis
) -> None:
    publish_model(admin)
    with Client(url("producer", port)) as producer, Client(url("operator", port)) as operator:
        job = producer.submit("doubling", [1, 0, 0])
        assert operator.job(job.id).explain().steps[-1].kind == "waiting"
        timeline = job.explain()
        assert (timeline.status, timeline.note) == (
            "waiting",
            "it has no outcome, and this Redis user may not search the queues for it",
        )
        with redis.Redis.from_url(url("worker", port)) as worker:
            Leases(worker, Keys()).claim("w/1", [ClaimLimits(queue="predict.doubling")], lease_ms=60_000)
        assert operator.job(job.id).explain().steps[-1].kind == "leased"


@ON_VALKEY_TOO
def test_an_operator_starts_a_canary_and_a_worker_counts_its_jobs_and_ends_it(
    port: int, admin: redis.Redis, tmp_path: Path
) -> None:
    store, keys = Store(add_model(tmp_path)), Keys()
    with connect(Settings(redis_url=url("operator", port))) as operator:
        promoter = Promoter(operator, keys, store, by="ann@here", max_bytes=1 << 30)
        promoter.promote(MODEL, "1")
        promoter.promote(MODEL, "1", alias="canary", share=0.5)
        with connect(Settings(redis_url=url("worker", port))) as worker:
            execute(worker, version_stats.add_command(keys, MODEL, "1", VersionStats(failed=3)))
            limits = CanaryLimits(min_jobs=1, max_extra_failures=0.0, max_slowdown=2.0)
            by_name = promoter.aliases(MODEL).by_name
            aliases = Aliases(MODEL, {**by_name, "production": Alias(version="2")})
            CanaryJudge(lambda: worker, keys, limits).check({MODEL: aliases})
            now = datetime.fromtimestamp(int(worker.time()[0]), UTC)
            for reply in execute(worker, Pipeline(add_commands(keys, MODEL, "1", now, {0: 1}))):
                assert not isinstance(reply, Exception)
        assert [stats.failed for _, _, stats in promoter.compare_versions(MODEL)] == [3]
        assert promoter.history(MODEL)[0].by == "headrace"
        assert measure_drift(operator, keys, store.read_manifest(MODEL, "1"), now) is None
        assert operator.get(keys.drift(MODEL, "1", int(now.timestamp()) // 3600))
    assert refused(admin) == []


def test_a_producer_may_not_access_dead_letters(port: int, admin: redis.Redis) -> None:
    publish_model(admin)
    with redis.Redis(port=port, username="admin", password="admin") as admin_raw:
        store_letter(admin_raw, make_letter("a"))
    with Client(settings=Settings(redis_url=url("producer", port))) as client:
        for operation in (
            lambda: list(client.dead_letters.list()),
            lambda: client.dead_letters.show("a"),
            lambda: client.dead_letters.replay(ids=["a"]),
            lambda: client.dead_letters.purge(every=True),
        ):
            with pytest.raises(BrokerUnavailable, match="does not permit this user"):
                operation()
    assert admin.zcard("headrace:dead:times") == 1


def test_old_versions_are_collected_by_the_user_of_a_worker(port: int, admin: redis.Redis, tmp_path: Path) -> None:
    publish_model(admin)
    models = add_model(tmp_path)
    for _ in range(2):
        add_model(tmp_path)
    with redis.Redis(port=port, username="admin", password="admin") as admin_raw:
        store_letter(admin_raw, make_letter("a", model=MODEL, version="2", queue=f"predict.{MODEL}"))
    settings = WorkerSettings(redis_url=url("worker", port), contract_ttl=0.01)
    with Client(settings=settings) as client:
        collector = GarbageCollector(
            Store(models), settings, lambda model: client.dead_letters.list(model=model), keep=1
        )
        candidates = collector.collect(collector.find_candidates([MODEL], datetime.now(UTC)))
        assert [(candidate.version, candidate.reason) for candidate in candidates] == [
            ("1", "the newest published version"),
            ("2", "the dead letter a"),
        ]
        admin.hset(f"headrace:contracts:{MODEL}", "latest", "3")
        candidates = collector.collect(collector.find_candidates([MODEL], datetime.now(UTC)))
    assert [candidate.version for candidate in candidates if candidate.remove] == ["1"]
    assert refused(admin) == []


@ON_VALKEY_TOO
def test_contracts_are_published_by_the_user_of_a_worker_and_by_no_reader(
    port: int, admin: redis.Redis, tmp_path: Path
) -> None:
    store = str(add_model(tmp_path))
    ran = headrace("models", "publish", "--store", store, "--url", url("worker", port))
    assert (ran.returncode, ran.stdout) == (0, f"{MODEL}@1  published\n")
    assert refused(admin) == []
    for name in ("metrics", "producer", "operator"):
        ran = headrace("models", "publish", "--store", store, "--url", url(name, port))
        assert ran.returncode == 1
        assert "does not permit this user" in ran.stderr
    with Client(url("producer", port)) as producer:
        assert producer.submit(MODEL, [1, 0, 0]).status() == "waiting"
        (depth,) = producer.queues()
        assert depth.backlog == 1


def test_metrics_are_read_by_a_user_that_may_change_nothing(port: int, admin: redis.Redis) -> None:
    publish_model(admin)
    with Client(url("producer", port)) as producer:
        producer.submit(MODEL, [1, 0, 0])
    registry = CollectorRegistry()
    settings = Settings(redis_url=url("metrics", port))
    registry.register(QueueCollector(lambda: connect(settings)))
    metrics = generate_latest(registry).decode()
    assert "headrace_redis_up 1.0" in metrics
    assert f'headrace_queue_waiting{{model="{MODEL}",priority="0"}} 1.0' in metrics
    assert f'headrace_backlog{{model="{MODEL}"}} 1.0' in metrics
    assert refused(admin) == []


@ON_VALKEY_TOO
@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("GET", "another-application"),
        ("GET", "celery-task-meta-x"),
        ("HGETALL", "headrace:dead"),
        ("RPOP", "predict.doubling"),
        ("LPUSH", "predict.doubling", "x"),
        ("PUBLISH", "/0.celery.pidbox", "shut down"),
    ],
    ids=" ".join,
)
def test_a_reader_of_metrics_may_not(command: tuple[str, ...], port: int, admin: redis.Redis) -> None:
    with redis.Redis.from_url(url("metrics", port)) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)


def test_flower_shows_all_its_pages_and_replays(port: int, admin: redis.Redis, tmp_path: Path) -> None:
    publish_model(admin)
    with redis.Redis(port=port, username="admin", password="admin") as raw:
        store_letter(raw, make_letter("a"))
    web = free_port()
    flower = start_flower(url("flower", port), tmp_path, port=web, HEADRACE_FLOWER_ACTIONS="true")
    try:
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        for path in (
            "/workers",
            "/tasks",
            "/jobs/a",
            "/broker",
            "/models",
            f"/models/{MODEL}",
            "/queues",
            "/dead-letters/a",
            "/dead-letters",
        ):
            with browser.open(f"http://127.0.0.1:{web}{path}", timeout=20) as answer:
                page = answer.read().decode()
        token = re.search(r'name="_xsrf" value="([^"]+)"', page)
        assert token
        form = urllib.parse.urlencode({"id": "a", "action": "replay", "_xsrf": token[1]}).encode()
        with browser.open(f"http://127.0.0.1:{web}/dead-letters", form, timeout=20) as answer:
            assert "1 replayed." in answer.read().decode()
        alias = Alias(version="1", share=0.1)
        execute(admin, publish_status(KEYS, MODEL, "w@host", ["1"], {}))
        for change in (
            {"action": "promote", "version": "1", "expected": ""},
            {"action": "rollback", "alias": CANARY, "expected": "1"},
        ):
            admin.hset(KEYS.aliases(MODEL), CANARY, encode_alias(alias))
            form = urllib.parse.urlencode({**change, "reason": "good", "_xsrf": token[1]}).encode()
            with browser.open(f"http://127.0.0.1:{web}/models/{MODEL}", form, timeout=20) as answer:
                assert 'id="done"' in answer.read().decode()
    finally:
        flower.stop()
    assert refused(admin) == []


def publish_model(admin: redis.Redis) -> None:
    """Publish the contract of the model as a worker does."""
    contract = Contract(model=MODEL, version="1", input=Array(shape=(3,)), methods={"predict": Output(shape=())})
    publish_contract(admin, Keys(), contract)


def test_writes_of_a_script_survive_a_restart(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "users.acl").write_text("\n".join([*users(), "user admin on >admin ~* &* +@all", ""]))
    admin = redis.Redis(port=port, username="admin", password="admin")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--aclfile", "users.acl"]
    command = [find_server("path"), *options]
    command += ["--appendonly", "yes", "--appendfsync", "always"]
    with running_server(command, tmp_path, "redis", admin):
        load_functions(admin)
        publish_model(admin)
        with Client(url("producer", port)) as producer:
            producer.submit(MODEL, [1, 0, 0])
    with running_server(command, tmp_path, "redis", admin):
        assert admin.llen(f"predict.{MODEL}") == 1
    admin.close()


def test_a_client_without_a_password_is_refused(port: int) -> None:
    with redis.Redis(port=port, retry=None) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
