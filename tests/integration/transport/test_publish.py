"""Renewing a lease, and ending it with outcomes: stored, announced, and only while the lease is held."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled, encode_outcome
from headrace_worker.transport.claims import Lease
from headrace_worker.transport.leases import Leases
from tests.support.lease_operations import (
    LEASE_MS,
    NOW,
    QUEUE,
    claim_jobs,
    expire_leases,
    failure,
    malformed,
    push,
    server_ms,
    stored_messages,
    success,
)


def test_renewal_moves_the_expiry_of_a_lease_and_returns_lost_leases(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a")
    lease = claim_jobs(leases).lease
    other = Lease(name="me/2", queue=QUEUE, origins=((1, 1),))
    db.zadd(keys.leases, {lease.member: 1})
    assert leases.renew([lease, other], lease_ms=5000) == [other]
    assert db.zscore(keys.leases, lease.member) == pytest.approx(server_ms(db) + 5000, abs=1000)
    assert db.zscore(keys.leases, other.member) is None


def test_publishing_stores_and_announces_outcomes_and_ends_the_lease(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a", b"b", b"no job", b"early")
    lease = claim_jobs(leases).lease
    db.hset(keys.job("a"), "model", "churn")
    with db.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(keys.result("a"))
        pubsub.get_message(timeout=1)
        published = leases.publish(
            lease,
            {"a": success("a"), "b": success("b")},
            ttl=100,
            dead_letters=[malformed(b"no job")],
            delayed=[(60_000, b"early")],
        )
        assert published == [True, True]
        message = pubsub.get_message(timeout=5)
        assert message is not None
        assert message["data"] == success("a")
    assert db.get(keys.result("b")) == success("b")
    assert 0 < db.ttl(keys.result("a")) <= 100
    assert 0 < db.ttl(keys.job("a")) <= 100
    assert list(stored_messages(db, keys).values()) == [b"no job"]
    assert db.zrange(keys.delayed(QUEUE), 0, -1) == [b"early"]
    assert db.zscore(keys.delayed(QUEUE), b"early") == pytest.approx(server_ms(db) + 60_000, abs=5000)
    assert db.exists(keys.leases, keys.lease("me/1")) == 0


def test_the_first_outcome_of_a_job_is_kept(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    lease = claim_jobs(leases).lease
    cancelled = encode_outcome(Cancelled(job="a"), NOW)
    db.set(keys.result("a"), cancelled)
    assert leases.publish(lease, {"a": success("a"), "b": success("b")}, ttl=100) == [False, True]
    assert db.get(keys.result("a")) == cancelled


def test_a_key_of_another_type_instead_of_an_outcome_does_not_lose_the_other_outcomes(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a", b"b")
    lease = claim_jobs(leases).lease
    db.lpush(keys.result("a"), "in the way")
    assert leases.publish(lease, {"a": success("a"), "b": success("b")}, ttl=100) == [True, True]


@pytest.mark.parametrize(
    "blocked_key",
    [
        lambda keys: keys.dead,
        lambda keys: keys.dead_messages,
        lambda keys: keys.dead_times,
        lambda keys: keys.delayed(QUEUE),
    ],
    ids=["dead", "messages", "times", "delayed"],
)
def test_publishing_that_fails_half_way_keeps_the_lease_and_loses_no_dead_letter(
    db: redis.Redis, keys: Keys, leases: Leases, blocked_key: Callable[[Keys], str]
) -> None:
    push(db, keys, b"a", b"no job")
    lease = claim_jobs(leases).lease
    outcome, letter = failure("a")
    db.set(blocked_key(keys), "in the way")

    def publish() -> list[bool] | None:
        letters = [letter, malformed(b"no job")]
        return leases.publish(lease, {"a": outcome}, ttl=100, dead_letters=letters, delayed=[(60_000, b"later")])

    with pytest.raises(redis.ResponseError):
        publish()
    assert db.lrange(keys.lease("me/1"), 0, -1) == [b"a", b"no job"]
    assert leases.renew([lease], lease_ms=LEASE_MS) == []
    db.delete(blocked_key(keys))
    assert publish() is not None
    assert set(stored_messages(db, keys)) == {"a", malformed(b"no job")[0].id}
    assert db.zrange(keys.delayed(QUEUE), 0, -1) == [b"later"]


def test_publishing_again_after_a_lost_reply_returns_the_same(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    lease = claim_jobs(leases).lease
    db.set(keys.result("b"), encode_outcome(Cancelled(job="b"), NOW))
    outcomes = {"a": success("a"), "b": success("b")}
    assert leases.publish(lease, outcomes, ttl=100) == [True, False]
    assert leases.publish(lease, outcomes, ttl=100) == [True, False]


def test_without_the_lease_every_operation_does_nothing(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    lost = claim_jobs(leases).lease
    expire_leases(db, keys)
    assert leases.requeue_isolated(lost, "lease_expired", owner="me", only_if_expired=True) == 2
    before = {key: db.dump(key) for key in db.scan_iter()}
    assert leases.publish(lost, {}, ttl=100, dead_letters=[malformed(b"b")]) is None
    assert leases.publish(lost, {}, ttl=100, delayed=[(1, b"b")]) is None
    letters, delayed = [malformed(b"b")], [(1, b"b")]
    assert leases.publish(lost, {"a": success("a")}, ttl=100, dead_letters=letters, delayed=delayed) is None
    assert not leases.finish(lost)
    assert not leases.requeue(lost)
    assert not leases.requeue_isolated(lost, "crash", owner="me")
    assert leases.renew([lost], lease_ms=LEASE_MS) == [lost]
    assert {key: db.dump(key) for key in db.scan_iter()} == before


def test_a_finished_message_is_deleted(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    lease = claim_jobs(leases).lease
    assert leases.finish(lease)
    assert not leases.finish(lease)
    assert list(db.scan_iter()) == []
