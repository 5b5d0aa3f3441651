"""Dead letters as claims end: stored with the outcome, and limited in number and age."""

from __future__ import annotations

import pytest
import redis

from headrace.wire.dead_letter import decode_letter
from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled, encode_outcome
from headrace_worker.transport.leases import Leases
from headrace_worker.transport.publish_script import DeadLetterLimits
from tests.support.lease_operations import (
    NOW,
    QUEUE,
    claim_jobs,
    failure,
    malformed,
    push,
    server_ms,
    stored_messages,
)


def test_a_dead_letter_is_stored_with_its_message_and_its_time(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a")
    outcome, (letter, message) = failure("a", metadata={"shop": "7"})
    lease = claim_jobs(leases).lease
    assert leases.publish(lease, {"a": outcome}, ttl=100, dead_letters=[(letter, message)]) == [True]
    assert stored_messages(db, keys) == {"a": message}
    died_ms = db.zscore(keys.dead_times, "a")
    assert died_ms == pytest.approx(server_ms(db), abs=5000)
    line = db.hget(keys.dead, "a")
    assert b"\n" not in line
    assert decode_letter("a", line, 0) == letter
    assert db.ttl(keys.dead) == db.ttl(keys.dead_times) == -1


def test_a_job_cancelled_while_it_failed_has_no_dead_letter(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    (outcome_a, letter_a), (outcome_b, letter_b) = failure("a"), failure("b")
    db.set(keys.result("a"), encode_outcome(Cancelled(job="a"), NOW))
    outcomes, letters = {"a": outcome_a, "b": outcome_b}, [letter_a, letter_b]
    published = leases.publish(claim_jobs(leases).lease, outcomes, ttl=100, dead_letters=letters)
    assert published == [False, True]
    assert set(stored_messages(db, keys)) == {"b"}


def test_a_job_that_fails_again_has_one_dead_letter_the_last(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    for name, error in (("me/1", "KeyError"), ("me/2", "ValueError")):
        push(db, keys, b"a")
        outcome, letter = failure("a", error=error)
        lease = claim_jobs(leases, name).lease
        assert leases.publish(lease, {"a": outcome}, ttl=100, dead_letters=[letter]) == [True]
        db.delete(keys.result("a"))  # as a replay does
    assert decode_letter("a", db.hget(keys.dead, "a"), 0).error == "ValueError"
    assert len(stored_messages(db, keys)) == 1


@pytest.mark.parametrize("content", ["retries", "letters", "both"])
def test_publishing_again_without_outcomes_returns_the_same_and_stores_nothing_twice(
    db: redis.Redis, keys: Keys, leases: Leases, content: str
) -> None:
    push(db, keys, b"a", b"\xff")
    lease = claim_jobs(leases).lease
    letters = [] if content == "retries" else [malformed(b"\xff")]
    delayed = [] if content == "letters" else [(60_000, b"\x01error:OSError,me,1,1;\na")]

    def publish() -> list[bool] | None:
        return leases.publish(lease, {}, ttl=100, dead_letters=letters, delayed=delayed)

    assert publish() == []
    before = {key: db.dump(key) for key in db.scan_iter()}
    assert publish() == []
    assert {key: db.dump(key) for key in db.scan_iter()} == before
    db.delete(keys.dead, keys.dead_messages, keys.dead_times, keys.delayed(QUEUE))
    assert publish() is None  # replayed, purged or run since: they do not come back
    assert list(db.scan_iter()) == []


def test_no_more_dead_letters_are_kept_than_the_limit_and_the_oldest_go_first(
    db: redis.Redis, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    leases = Leases(db, keys, DeadLetterLimits(max_count=5, max_age_seconds=3600))
    for number in range(4):
        push(db, keys, b"a", b"b")
        failures = {f"{number}{suffix}": failure(f"{number}{suffix}") for suffix in "ab"}
        outcomes = {job: outcome for job, (outcome, _) in failures.items()}
        letters = [letter for _, letter in failures.values()]
        with caplog.at_level("WARNING", "headrace.claims"):
            leases.publish(claim_jobs(leases, f"me/{number}").lease, outcomes, ttl=100, dead_letters=letters)
        for job in failures:  # each claim is later than the claim before
            db.zincrby(keys.dead_times, number - 100, job)
    assert set(stored_messages(db, keys)) == {"1b", "2a", "2b", "3a", "3b"}
    assert db.get(keys.dead_dropped) == b"3"
    assert "dropped the 1 oldest dead letters" in caplog.text


def test_more_failures_in_a_claim_than_the_limit_leave_no_more_than_the_limit(db: redis.Redis, keys: Keys) -> None:
    leases = Leases(db, keys, DeadLetterLimits(max_count=10, max_age_seconds=3600))
    push(db, keys, *(b"%d" % number for number in range(500)))
    failures = {str(number): failure(str(number)) for number in range(500)}
    outcomes = {job: outcome for job, (outcome, _) in failures.items()}
    letters = [letter for _, letter in failures.values()]
    leases.publish(claim_jobs(leases, jobs=500).lease, outcomes, ttl=100, dead_letters=letters)
    assert len(stored_messages(db, keys)) == 10
    assert db.get(keys.dead_dropped) == b"490"


def test_dead_letters_too_old_or_too_many_are_dropped_step_by_step(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a")
    letters = [malformed(b"%d" % number) for number in range(20)]
    leases.publish(claim_jobs(leases).lease, {}, ttl=1, dead_letters=letters)
    assert leases.trim_dead_letters() == 0
    for letter, _ in letters[:12]:
        db.zadd(keys.dead_times, {letter.id: server_ms(db) - 31 * 86_400_000})
    assert leases.trim_dead_letters(limit=10) == 10
    assert leases.trim_dead_letters(limit=10) == 2
    assert leases.trim_dead_letters(limit=10) == 0
    assert set(stored_messages(db, keys).values()) == {b"%d" % number for number in range(12, 20)}
    assert Leases(db, keys, DeadLetterLimits(max_count=3, max_age_seconds=3600)).trim_dead_letters() == 5
    assert len(stored_messages(db, keys)) == 3
    assert db.get(keys.dead_dropped) == b"17"


def test_a_malformed_message_is_stored_and_its_lease_ends(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"\xff")
    leases.store_dead_letter(*malformed(b"\xff"), claim_jobs(leases).lease)
    leases.store_dead_letter(*malformed(b"\xfe"), None)
    assert set(stored_messages(db, keys).values()) == {b"\xfe", b"\xff"}
    assert db.zscore(keys.dead_times, malformed(b"\xfe")[0].id) == pytest.approx(server_ms(db), abs=5000)
    assert db.exists(keys.leases, keys.lease("me/1")) == 0
