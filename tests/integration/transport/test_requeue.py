"""Putting the jobs of a claim back: uncounted where they came from, or isolated after a lost run."""

from __future__ import annotations

import time

import pytest
import redis

from headrace.wire.attempts import decode_queued_message
from headrace.wire.keys import Keys
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease, NothingClaimed, parse_lease
from headrace_worker.transport.leases import Leases
from tests.support.lease_operations import (
    LEASE_MS,
    QUEUE,
    claim_jobs,
    expire_leases,
    move_under,
    park_lease,
    push,
    server_ms,
)


def test_requeued_messages_are_exactly_where_they_were(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    for priority in (0, 3, 6, 9):
        push(db, keys, *(b"%d-%d" % (priority, n) for n in range(3)), priority=priority)
    before = {key: db.lrange(key, 0, -1) for key in db.scan_iter()}
    lease = claim_jobs(leases, jobs=8).lease
    assert leases.requeue(lease) == 8
    assert {key: db.lrange(key, 0, -1) for key in db.scan_iter()} == before


def test_an_isolated_job_that_is_requeued_stays_isolated(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    leases.requeue_isolated(claim_jobs(leases).lease, "crash", owner="me")
    before = db.lrange(keys.isolated(QUEUE), 0, -1)
    claim = claim_jobs(leases)
    assert len(claim.queued_messages) == 1
    leases.requeue(claim.lease)
    assert db.lrange(keys.isolated(QUEUE), 0, -1) == before


def test_jobs_of_a_lost_run_are_isolated_with_an_attempt_and_run_first(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    binary = b"\x00\xff\n\x01"
    push(db, keys, b"a", binary)
    assert leases.requeue_isolated(claim_jobs(leases).lease, "crash", owner="me") == 2
    push(db, keys, b"fresh")
    first, second = claim_jobs(leases, "me/2"), claim_jobs(leases, "me/3")
    for claim, message in ((first, b"a"), (second, binary)):
        (queued_message,) = claim.queued_messages
        [attempt], decoded = decode_queued_message(queued_message)
        assert decoded == message
        assert (attempt.cause, attempt.owner, attempt.claim_size) == ("crash", "me", 2)
        assert attempt.at_ms / 1000 == pytest.approx(time.time(), abs=60)
    leases.requeue_isolated(first.lease, "timeout", owner="you")
    attempts, message = decode_queued_message(claim_jobs(leases, "me/4").queued_messages[0])
    assert message == b"a"
    assert [(attempt.cause, attempt.owner, attempt.claim_size) for attempt in attempts] == [
        ("crash", "me", 2),
        ("timeout", "you", 1),
    ]
    assert list(claim_jobs(leases, "me/5").queued_messages) == [b"fresh"]


@pytest.mark.parametrize(
    "message",
    [
        b"\x01no newline",
        b"\x01",
        b"\x01\n{}",
        b"\x01\n\n{}",
        b"\x01crash,me,1,1\n\n{}",
        b"\x01crash,me,1,1\n",
    ],
)
def test_the_history_of_a_message_that_a_producer_wrote_is_a_part_of_the_message(
    db: redis.Redis, keys: Keys, leases: Leases, message: bytes
) -> None:
    push(db, keys, message)
    leases.requeue_isolated(claim_jobs(leases).lease, "crash", owner="me")
    attempts, decoded = decode_queued_message(claim_jobs(leases, "me/2").queued_messages[0])
    assert decoded == message
    assert [attempt.cause for attempt in attempts] == ["crash"]


def test_cause_and_owner_cannot_break_the_history(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    leases.requeue_isolated(claim_jobs(leases).lease, "cra,sh", owner="me,\nyou\x01")
    [attempt], message = decode_queued_message(claim_jobs(leases, "me/2").queued_messages[0])
    assert (attempt.cause, attempt.owner, message) == ("cra_sh", "me__you_", b"a")


def test_only_an_expired_lease_is_swept(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    lease = claim_jobs(leases).lease
    assert leases.find_expired().leases == []
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 0
    expire_leases(db, keys)
    assert leases.find_expired().leases == [lease]
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 1
    assert leases.find_expired().leases == []


def test_an_ordinary_message_goes_back_where_it_came_from(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b", queue="ordinary", priority=3)
    claim = leases.claim("me/1", [ClaimLimits(queue="ordinary")], lease_ms=LEASE_MS)
    assert isinstance(claim, Claim)
    expire_leases(db, keys)
    assert leases.requeue_isolated(claim.lease, "lease_expired", owner="me", only_if_expired=True) == 1
    assert db.lrange(keys.lists("ordinary")[1], 0, -1) == [b"b", b"a"]


def test_isolating_that_fails_half_way_leaves_the_jobs_under_their_lease(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a")
    lease = claim_jobs(leases).lease
    db.set(keys.isolated(QUEUE), "in the way")
    with pytest.raises(redis.ResponseError):
        leases.requeue_isolated(lease, "crash", owner="me")
    assert leases.find({"me/1"}) == [lease]
    assert db.lrange(keys.lease("me/1"), 0, -1) == [b"a"]


def test_other_members_among_the_leases_are_ignored(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    db.zadd(
        keys.leases,
        {
            b"\xff": 1,
            b"a#b": 1,
            b"a#b#c": 1,
            b"a#1#c": 1,
            b"a#1,2#d": 1,
            b"a#9,1#d": 1,
            b"a#-1,1#d": 1,
            b"a#1,-1#d": 1,
        },
    )
    assert [lease.queue for lease in leases.find_expired().leases] == ["d"]


def test_a_lease_is_parsed_from_its_member() -> None:
    for blocking in (False, True):
        lease = Lease(name="host/1/ab/7", queue="predict.a#b", origins=((0, 1), (8, 22)), blocking=blocking)
        assert parse_lease(lease.member.encode()) == lease


def test_an_empty_blocking_lease_is_extended_once_and_then_ends(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    lease = park_lease(leases)
    expire_leases(db, keys)
    assert leases.find_expired().leases == [lease]
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 0
    assert db.zscore(keys.leases, lease.member) - server_ms(db) == pytest.approx(10_000, abs=500)
    assert leases.find_expired().leases == []
    expire_leases(db, keys)
    assert leases.find_expired().leases == [lease]
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 0
    assert list(db.scan_iter()) == [keys.lease(lease.name).encode()]  # the fence for a late BLMOVE


def test_a_blocking_lease_that_its_owner_parked_again_is_extended_again(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    lease = park_lease(leases)
    expire_leases(db, keys)
    leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True)
    limits = [ClaimLimits(queue=QUEUE)]
    assert isinstance(leases.claim("me/1", limits, lease_ms=0, parked=lease), NothingClaimed)
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 0
    assert db.zscore(keys.leases, lease.member) - server_ms(db) == pytest.approx(10_000, abs=500)


def test_a_job_under_an_expired_blocking_lease_is_isolated(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    lease = park_lease(leases)
    push(db, keys, b"0")
    move_under(db, keys, lease)
    expire_leases(db, keys)
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 1
    assert db.llen(keys.isolated(QUEUE)) == 1
    assert not db.exists(keys.leases, keys.lease(lease.name))
