"""A mark of a job that runs: it never replaces an outcome, and an outcome always replaces it."""

from __future__ import annotations

import pytest
import redis

from headrace import Client
from headrace.connection.commands import execute
from headrace.results.publish import publish_command
from headrace.results.started import MARK_SECONDS, encode_mark, mark_command, unmark_command
from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled
from tests.support.lease_operations import NOW

KEYS = Keys()
MARK, OTHER = encode_mark("a", "w@here", "lease/1"), encode_mark("a", "w@there", "lease/2")


def mark(server: redis.Redis, mark: bytes = MARK) -> None:
    execute(server, mark_command(KEYS, {"a": mark}))


def publish(server: redis.Redis) -> None:
    assert execute(server, publish_command(KEYS, [Cancelled(job="a")], ttl=60, now=NOW)) == [1]


def test_a_marked_job_runs_for_headrace_and_is_started_for_celery_until_it_has_an_outcome(
    server: redis.Redis, redis_url: str
):
    with Client(redis_url, check=False) as client:
        mark(server)
        assert client.job("a").status() == "running"
        assert not client.job("a").done()
        assert 0 < server.ttl(KEYS.result("a")) <= MARK_SECONDS
        publish(server)
        assert client.job("a").status() == "cancelled"


def test_no_mark_replaces_an_outcome_and_none_is_removed_with_a_mark(server: redis.Redis):
    publish(server)
    outcome = server.get(KEYS.result("a"))
    mark(server)
    execute(server, unmark_command(KEYS, {"a": MARK}))
    assert server.get(KEYS.result("a")) == outcome


def test_only_the_worker_that_has_the_job_removes_its_mark(server: redis.Redis):
    mark(server)
    mark(server, OTHER)
    execute(server, unmark_command(KEYS, {"a": MARK}))
    assert server.get(KEYS.result("a")) == OTHER
    execute(server, unmark_command(KEYS, {"a": OTHER}))
    assert not server.exists(KEYS.result("a"))


@pytest.mark.parametrize("command", [mark_command, unmark_command])
def test_a_key_of_another_type_is_left_alone(server: redis.Redis, command):
    server.lpush(KEYS.result("a"), "x")
    execute(server, command(KEYS, {"a": MARK, "b": MARK}))
    assert server.lrange(KEYS.result("a"), 0, -1) == [b"x"]
