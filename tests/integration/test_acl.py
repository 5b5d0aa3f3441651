"""The users of docs/reference/acl.md can do what they are for, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from claim_models import SLEEP, add, serving, wait_for
from connections import MODEL, free_port, kill_pool, started, submits
from redis.exceptions import NoPermissionError
from redis_servers import find

from burying import bury, crashed, letter
from headrace import BrokerUnavailable, Client, JobCancelled, Settings
from headrace.broker import celery_app
from headrace.contract import Array, Contract, Output
from headrace.contracts import publish
from headrace.queues import Keys
from headrace_worker.models.garbage import Collector
from headrace_worker.models.store import Store
from headrace_worker.settings import WorkerSettings

#: redis-py tells its name and version where it may; a worker looks at what Redis promises at its start.
DONE_WITHOUT = {"client|setinfo", "info", "config|get"}

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "acl.md"


def users() -> list[str]:
    """The lines of the page, as an `aclfile` has them."""
    (block,) = re.findall(r"^```\n(user .*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(block).splitlines()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis 7 that knows the users of the page, and one who looks on."""
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    (folder / "users.acl").write_text("\n".join([*users(), "user admin on >admin ~* &* +@all", ""]))
    admin = redis.Redis(port=port, username="admin", password="admin")
    command = [find("path"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--aclfile", "users.acl"]
    with started(command, folder, "redis", admin):
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
    """What the users of the page asked for in vain, but for what the page says is done without."""
    parts = ("username", "reason", "object", "context")
    entries = [entry for entry in admin.acl_log() if entry["object"] not in DONE_WITHOUT]
    return [" ".join(entry[part] for part in parts) for entry in entries]


def test_producer_and_worker_do_all_they_are_for(port: int, admin: redis.Redis, tmp_path: Path) -> None:
    settings = Settings(redis_url=url("producer", port))
    with serving(url=url("worker", port), models=add(tmp_path), folder=tmp_path) as worker:
        submits(settings)
        with celery_app(Settings(redis_url=url("celery", port))) as app, Client(settings=settings) as client:
            job = app.send_task("headrace.predict", args=[MODEL, [[5, 0, 0]]], queue=f"predict.{MODEL}")
            assert job.get(timeout=20)["predictions"] == [10]
            app.backend.client.connection_pool.disconnect()
            again = client.submit(MODEL, [1, SLEEP, 0.3], priority=9)
            wait_for(lambda: admin.zcard("headrace:leases"))
            kill_pool(worker)
            assert again.result(timeout=20).prediction == 2
            late = client.submit(MODEL, [1, 0, 0], delay=1)
            assert late.result(timeout=10).prediction == 2
            with celery_app(Settings(redis_url=f"redis://admin:admin@127.0.0.1:{port}/0")) as control:
                assert control.control.inspect(timeout=5, limit=1).ping()
                assert control.control.revoke([again.id], reply=True, timeout=5)
    assert refused(admin) == []


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
        ("LRANGE", "headrace:again:predict.doubling", "0", "-1"),
        ("LPUSH", "headrace:again:predict.doubling", "x"),
        ("ZRANGE", "headrace:delayed:predict.doubling", "0", "-1"),
        ("ZRANGE", "headrace:died", "0", "-1"),
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


@pytest.mark.parametrize(
    "command",
    [("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("GET", "another-application"), ("MONITOR",)],
    ids=" ".join,
)
def test_a_worker_may_not(command: tuple[str, ...], port: int, admin: redis.Redis) -> None:
    with redis.Redis.from_url(url("worker", port)) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("GET", "another-application"),
        ("RPOP", "predict.doubling"),
        ("ZREM", "headrace:leases", "x"),
        ("LRANGE", "headrace:lease:x", "0", "-1"),
        ("HSET", "headrace:dead", "x", "x"),
        ("SET", "headrace:contracts:doubling", "x"),
        ("PUBLISH", "/0.celery.pidbox", "shut down"),
    ],
    ids=" ".join,
)
def test_an_operator_may_not(command: tuple[str, ...], port: int, admin: redis.Redis) -> None:
    with redis.Redis.from_url(url("operator", port)) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)


def test_an_operator_does_all_there_is_to_do_with_dead_letters(port: int, admin: redis.Redis) -> None:
    published(admin)
    admin_raw = redis.Redis(port=port, username="admin", password="admin")
    with admin_raw, Client(settings=Settings(redis_url=url("operator", port))) as client:
        for name, attempts in (("a", ()), ("b", (crashed(),)), ("c", ())):
            bury(admin_raw, letter(name, attempts=attempts, model=MODEL, queue=f"predict.{MODEL}"))
        dead = client.dead_letters
        assert [storm.count for storm in dead.storms()] == [3]
        assert [one.id for one in dead.export()] == ["a", "b", "c"]
        assert dead.count().letters == 3
        assert dead.show("a").model == MODEL
        assert dead.replay(ids=["a", "b"], version="1").done == 2
        assert dead.purge(model=MODEL).done == 1
        (depth,) = client.queues()
        assert (depth.waiting, depth.again) == (2, 1)
        assert client.job("a").status() == "queued"
        assert client.job("a").cancel()
        with pytest.raises(JobCancelled):
            client.job("a").result(timeout=5)
    assert refused(admin) == []


def test_a_producer_cannot_reach_dead_letters(port: int, admin: redis.Redis) -> None:
    published(admin)
    with redis.Redis(port=port, username="admin", password="admin") as admin_raw:
        bury(admin_raw, letter("a"))
    with Client(settings=Settings(redis_url=url("producer", port))) as client:
        for act in (
            lambda: list(client.dead_letters.list()),
            lambda: client.dead_letters.show("a"),
            lambda: client.dead_letters.replay(ids=["a"]),
            lambda: client.dead_letters.purge(every=True),
        ):
            with pytest.raises(BrokerUnavailable, match="does not permit this user"):
                act()
    assert admin.zcard("headrace:died") == 1


def test_old_versions_are_collected_as_a_worker(port: int, admin: redis.Redis, tmp_path: Path) -> None:
    published(admin)
    models = add(tmp_path)
    for _ in range(2):
        add(tmp_path)
    with redis.Redis(port=port, username="admin", password="admin") as admin_raw:
        bury(admin_raw, letter("a", model=MODEL, version="2", queue=f"predict.{MODEL}"))
    settings = WorkerSettings(redis_url=url("worker", port), contract_ttl=0.01)
    collector = Collector(Store(models), settings, keep=1)
    done = collector.collect(collector.look([MODEL], datetime.now(UTC)))
    assert [(one.version, one.why) for one in done] == [("1", "serves"), ("2", "the dead letter a")]
    admin.hset(f"headrace:contracts:{MODEL}", "latest", "3")
    done = collector.collect(collector.look([MODEL], datetime.now(UTC)))
    assert [one.version for one in done if one.remove] == ["1"]
    assert refused(admin) == []


def published(admin: redis.Redis) -> None:
    """A contract of the model, as a worker publishes it."""
    contract = Contract(model=MODEL, version="1", input=Array(shape=(3,)), methods={"predict": Output(shape=())})
    publish(admin, Keys(), contract)


def test_nobody_comes_in_without_a_password(port: int) -> None:
    with redis.Redis(port=port, retry=None) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
