"""Delayed jobs that are due move to the lists of their queue."""

from __future__ import annotations

import json
import time

import pytest
import redis

from headrace.wire.attempts import Attempt, encode_queued_message
from headrace.wire.keys import Keys
from headrace_worker.transport.leases import Leases
from tests.support.lease_operations import QUEUE, claim_jobs


@pytest.mark.parametrize(("priority", "index"), [(0, 0), (2, 0), (3, 1), (8, 2), (9, 3), (99, 3)])
def test_a_delayed_job_goes_to_the_list_of_its_priority(
    db: redis.Redis, keys: Keys, leases: Leases, priority: int, index: int
) -> None:
    message = json.dumps({"body": "e30=", "properties": {"priority": priority}}).encode()
    db.zadd(keys.delayed(QUEUE), {message: 1})
    assert leases.move_due(QUEUE) == 1
    assert db.lrange(keys.lists(QUEUE)[index], 0, -1) == [message]
    assert db.exists(keys.delayed(QUEUE)) == 0


@pytest.mark.parametrize(
    ("causes", "index"),
    [
        (["error:OSError"], 3),
        (["error:crash"], 3),
        (["replay"], 3),
        (["crash"], None),
        (["lease_expired", "replay"], None),
        (["error:OSError", "timeout"], None),
    ],
)
def test_a_retry_goes_to_the_list_of_its_priority_unless_it_must_run_alone(
    db: redis.Redis, keys: Keys, leases: Leases, causes: list[str], index: int | None
) -> None:
    attempts = [Attempt(cause=cause, owner="crash", at_ms=1, claim_size=1) for cause in causes]
    message = encode_queued_message(
        attempts, b'{"body": "e30=", "properties": {"priority": 9}, "cause": ";crash,"}'
    )
    db.zadd(keys.delayed(QUEUE), {message: 1})
    assert leases.move_due(QUEUE) == 1
    target = keys.isolated(QUEUE) if index is None else keys.lists(QUEUE)[index]
    assert db.lrange(target, 0, -1) == [message]


def test_a_due_job_stays_delayed_if_its_list_cannot_be_written(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    db.zadd(keys.delayed(QUEUE), {b"a": 1})
    db.set(keys.lists(QUEUE)[0], "in the way")
    with pytest.raises(redis.ResponseError):
        leases.move_due(QUEUE)
    assert db.zrange(keys.delayed(QUEUE), 0, -1) == [b"a"]


def test_only_due_jobs_are_moved_and_no_more_than_the_limit(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    in_an_hour = (time.time() + 3600) * 1000
    db.zadd(keys.delayed(QUEUE), {b"1": 1, b"2": 2, b"3": 3, b"later": in_an_hour})
    assert leases.move_due(QUEUE, limit=2) == 2
    assert leases.move_due(QUEUE, limit=2) == 1
    assert leases.move_due(QUEUE, limit=2) == 0
    assert list(claim_jobs(leases).queued_messages) == [b"1", b"2", b"3"]
