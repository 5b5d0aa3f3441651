"""Delayed jobs that are due move to the lists of their queue."""

from __future__ import annotations

import time

import pytest
import redis

from headrace.wire.attempts import decode_delayed, encode_delayed
from headrace.wire.keys import Keys
from headrace_worker.transport.leases import Leases
from tests.support.lease_operations import QUEUE, claim_jobs, push


@pytest.mark.parametrize("source", range(9))
def test_a_delayed_job_goes_to_the_list_that_its_member_names(
    db: redis.Redis, keys: Keys, leases: Leases, source: int
) -> None:
    message = b'\x00{"priority": 9}'
    db.zadd(keys.delayed(QUEUE), {encode_delayed(source, message): 1})
    assert leases.move_due(QUEUE) == 1
    assert db.lrange(keys.sources(QUEUE)[source], 0, -1) == [message]
    assert db.exists(keys.delayed(QUEUE)) == 0


@pytest.mark.parametrize("member", [b"", b"{}", b"9{}", b"/{}", b"\x01crash,me,1,1\n\n{}", b"\xff"])
def test_a_member_of_another_form_goes_whole_to_a_list_without_histories(
    db: redis.Redis, keys: Keys, leases: Leases, member: bytes
) -> None:
    db.zadd(keys.delayed(QUEUE), {member: 1, b"2{}": 2})
    assert leases.move_due(QUEUE) == 2
    assert db.lrange(keys.lists(QUEUE)[0], 0, -1) == [member]
    assert decode_delayed(member) == (1, member)


def test_a_due_job_stays_delayed_if_its_list_cannot_be_written(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    db.zadd(keys.delayed(QUEUE), {b"1a": 1, b"2b": 2})
    db.set(keys.lists(QUEUE)[1], "in the way")
    with pytest.raises(redis.ResponseError):
        leases.move_due(QUEUE)
    assert db.zrange(keys.delayed(QUEUE), 0, -1) == [b"1a", b"2b"]
    assert not db.exists(keys.lists(QUEUE)[0])


def test_only_due_jobs_are_moved_and_no_more_than_the_limit(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    in_an_hour = (time.time() + 3600) * 1000
    db.zadd(keys.delayed(QUEUE), {b"11": 1, b"12": 2, b"13": 3, b"1later": in_an_hour})
    assert leases.move_due(QUEUE, limit=2) == 2
    assert leases.move_due(QUEUE, limit=2) == 1
    assert leases.move_due(QUEUE, limit=2) == 0
    assert list(claim_jobs(leases).queued_messages) == [b"1", b"2", b"3"]


def test_the_record_of_a_delayed_job_lives_longer_and_is_never_shortened(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    for name, ttl in (("short", 5), ("long", 5000)):
        db.set(keys.job(name), b"record", ex=ttl)
    push(db, keys, b"a", b"b", b"c")
    delayed, seconds = [(1000, b"1a"), (1000, b"1b"), (1000, b"1c")], {"short": 100, "long": 100, "foreign": 100}
    assert leases.publish(claim_jobs(leases).lease, {}, ttl=1, delayed=delayed, record_seconds=seconds) == []
    assert 90 < db.ttl(keys.job("short")) <= 100
    assert not db.exists(keys.job("foreign"))  # a job of another client has no record
    if db.info("server")["redis_version"] >= "7":
        assert db.ttl(keys.job("long")) > 4000
