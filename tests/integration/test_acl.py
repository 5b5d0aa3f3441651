"""The users of docs/reference/acl.md can do what they are for, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from claim_models import SLEEP, add, serving, wait_for
from connections import MODEL, free_port, kill_pool, started, submits
from redis.exceptions import NoPermissionError
from redis_servers import find

from headrace import Client, Settings
from headrace.broker import celery_app

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
    """What the users of the page asked for in vain. redis-py tells its name and version where it may."""
    parts = ("username", "reason", "object", "context")
    entries = [entry for entry in admin.acl_log() if entry["object"] != "client|setinfo"]
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
        ("ZRANGE", "headrace:leases", "0", "-1"),
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


def test_nobody_comes_in_without_a_password(port: int) -> None:
    with redis.Redis(port=port, retry=None) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
