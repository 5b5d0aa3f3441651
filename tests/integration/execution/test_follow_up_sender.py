"""Follow-ups of outcomes are sent in one step each, and stay while they cannot be sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis

from headrace.wire.keys import Keys
from headrace_worker.execution.canvas_app import CanvasApp, ChordPart
from headrace_worker.execution.follow_up_sender import FollowUpSender
from headrace_worker.execution.follow_ups import FollowUps

KEYS = Keys()
#: Server's milliseconds: the follow-ups are planned then.
PLANNED = 1_000_000_000_000
TTL = 60


@pytest.fixture
def sender(server: redis.Redis) -> FollowUpSender:
    def make_app() -> CanvasApp:
        return CanvasApp(lambda: server, KEYS, queues=["*"], job_keys=None, ttl=TTL, store_failure=print)

    return FollowUpSender(lambda: server, KEYS, make_app, lease_ms=1000, ttl=TTL)


def store(server: redis.Redis, **writes: Any) -> bytes:
    """Store follow-ups that are due."""
    member = FollowUps(**{"job": "a", "planned_ms": PLANNED, **writes}).encode()
    server.zadd(KEYS.follow_ups, {member: 1})
    return member


def is_postponed(server: redis.Redis, member: bytes) -> bool:
    score = server.zscore(KEYS.follow_ups, member)
    return score is not None and score > PLANNED


def test_what_follows_is_sent_once(server: redis.Redis, sender: FollowUpSender) -> None:
    member = store(
        server, messages=[("celery", "one"), ("celery", "two")], values=[("size", "2", 30)], deleted=["c"]
    )
    server.set("c", "done")
    sender.send([member])
    sender.send([member])
    assert server.lrange("celery", 0, -1) == [b"two", b"one"]
    assert (server.get("size"), server.exists("c", KEYS.follow_ups)) == (b"2", 0)
    assert 0 < server.ttl("size") <= 30


def test_due_follow_ups_are_taken_by_one_worker(server: redis.Redis, sender: FollowUpSender) -> None:
    for number in range(250):
        store(server, job=str(number), messages=[("celery", str(number))])
    server.zadd(
        KEYS.follow_ups, {FollowUps(job="not due", planned_ms=1, messages=[("celery", "x")]).encode(): 10**15}
    )
    counts = [sender.send_due() for _ in range(4)]
    assert counts == [100, 100, 50, 0]
    assert sorted(map(int, server.lrange("celery", 0, -1))) == [*range(250)]
    assert server.zcard(KEYS.follow_ups) == 1


def test_a_queue_that_is_another_key_holds_up_its_own_follow_ups_only(
    server: redis.Redis, sender: FollowUpSender, caplog: pytest.LogCaptureFixture
) -> None:
    server.set("taken", "x")
    refused = store(server, messages=[("celery", "first"), ("taken", "second")])
    other = store(server, job="b", messages=[("celery", "other")])
    with caplog.at_level(logging.ERROR):
        sender.send([refused, other], PLANNED)
    assert server.lrange("celery", 0, -1) == [b"other"]
    assert is_postponed(server, refused)
    assert "cannot send what follows job a, retrying in 60 s: WRONGTYPE" in caplog.text
    server.delete("taken")
    sender.send([refused], PLANNED)
    assert (server.llen("celery"), server.llen("taken"), server.exists(KEYS.follow_ups)) == (2, 1, 0)


def test_what_cannot_be_sent_is_dropped_when_outcomes_are(
    server: redis.Redis, sender: FollowUpSender, caplog: pytest.LogCaptureFixture
) -> None:
    server.set("taken", "x")
    member = store(server, messages=[("taken", "second")])
    sender.send([member], PLANNED + 1000 * TTL)
    assert is_postponed(server, member)
    sender.send([member], PLANNED + 1000 * TTL + 1)
    assert not server.exists(KEYS.follow_ups)
    assert "it is dropped" in caplog.text


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"{}", b"[" * 100_000, b'{"job":1,"planned_ms":1}'])
def test_a_damaged_entry_is_dropped(server: redis.Redis, sender: FollowUpSender, damaged: bytes) -> None:
    server.zadd(KEYS.follow_ups, {damaged: 1})
    other = store(server, messages=[("celery", "other")])
    assert other
    sender.send_due()
    assert (server.exists(KEYS.follow_ups), server.llen("celery")) == (0, 1)


def test_a_failure_is_stored_for_tasks_without_an_outcome_and_without_a_record(
    server: redis.Redis, sender: FollowUpSender
) -> None:
    server.set(KEYS.result("ended"), '{"status": "SUCCESS"}')
    server.set(KEYS.job("submitted"), "record")
    failure = '{"status": "FAILURE", "failed_by": "a"}'
    member = store(server, failures=[(task, failure) for task in ("waiting", "ended", "submitted")])
    sender.send([member])
    stored = server.mget(*map(KEYS.result, ("waiting", "ended", "submitted")))
    assert stored == [failure.encode(), b'{"status": "SUCCESS"}', None]


def test_the_failures_of_a_replayed_job_are_deleted_and_no_others(
    server: redis.Redis, sender: FollowUpSender
) -> None:
    server.set(KEYS.result("mine"), '{"status": "FAILURE", "failed_by": "a"}')
    server.set(KEYS.result("own"), '{"status": "FAILURE", "result": "\\"failed_by\\": \\"a\\""}')
    server.set(KEYS.result("other"), '{"status": "FAILURE", "failed_by": "ab"}')
    sender.send([store(server, messages=[("celery", "x")], revived=["mine", "own", "other"])])
    assert [server.exists(KEYS.result(task)) for task in ("mine", "own", "other")] == [0, 1, 1]


def chord_part(number: int = 0) -> ChordPart:
    body = {"task": "body", "args": [], "kwargs": {}, "options": {"task_id": "body"}, "subtask_type": None,
            "immutable": False}  # fmt: skip
    return ChordPart(
        id=f"job-{number}",
        root_id="root",
        group="g",
        group_index=number,
        chord=json.dumps(body),
        state="SUCCESS",
        result=number,
    )


@pytest.fixture
def add(server: redis.Redis, sender: FollowUpSender) -> Callable[[int], bytes]:
    def add(number: int) -> bytes:
        member = store(server, job=f"job-{number}", chord_parts=[chord_part(number)])
        sender.send([member])
        return member

    server.set("celery-taskset-meta-g.s", 2)
    return add


def test_the_last_part_of_a_chord_starts_its_body(server: redis.Redis, add: Callable[[int], bytes]) -> None:
    add(1)
    add(1)
    assert server.llen("celery") == 0
    add(0)
    assert (server.llen("celery"), server.exists(KEYS.follow_ups)) == (1, 0)
    headers = json.loads(server.lindex("celery", 0))["headers"]
    assert (headers["parent_id"], headers["root_id"]) == ("job-0", "root")


def test_a_part_stays_while_another_worker_starts_the_body(
    server: redis.Redis, sender: FollowUpSender, add: Callable[[int], bytes]
) -> None:
    """That worker may have been killed: its claim of the chord expires."""
    add(1)
    server.set("celery-taskset-meta-g.c", "another worker")
    member = add(0)
    assert (server.llen("celery"), server.zcard(KEYS.follow_ups)) == (0, 1)
    server.delete("celery-taskset-meta-g.c")
    sender.send([member])
    assert (server.llen("celery"), server.exists(KEYS.follow_ups)) == (1, 0)


def test_the_failure_of_a_header_is_stored_before_that_of_the_body(
    server: redis.Redis, sender: FollowUpSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*_: object, **__: object) -> bool:
        assert server.exists(KEYS.result("later"))
        return True

    monkeypatch.setattr(FollowUpSender, "_add_to_chord", check)
    sender.send([store(server, chord_parts=[chord_part()], failures=[("later", "{}")])])
    assert not server.exists(KEYS.follow_ups)


def test_a_part_that_is_not_stored_is_not_added(server: redis.Redis, sender: FollowUpSender) -> None:
    """A job that was not cancelled after all must not fail its chord."""
    sender.send([FollowUps(job="a", planned_ms=1, chord_parts=[chord_part()]).encode()])
    assert not list(server.scan_iter("celery-taskset-meta-*"))
