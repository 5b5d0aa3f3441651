"""Dead letters as claims end: stored with the outcome, and limited in number and age."""

from __future__ import annotations

import msgspec
import pytest
import redis

from headrace.results.letter_scripts import DeadLetterLimits
from headrace.wire.dead_letter import decode_letter
from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled, encode_outcome
from headrace_worker.transport.leases import Leases
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


def fail(db: redis.Redis, keys: Keys, leases: Leases, job: str, number: int, **fields: object) -> None:
    """Let a job with this id fail. Its outcome is forgotten, as after its time to live."""
    push(db, keys, job.encode())
    outcome, letter = failure(job, **fields)
    lease = claim_jobs(leases, f"me/{number}").lease
    assert leases.publish(lease, {job: outcome}, ttl=100, dead_letters=[letter]) == [True]
    db.delete(keys.result(job))


def test_a_second_letter_of_the_same_id_is_kept_beside_the_first(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    for number in range(12):
        fail(db, keys, leases, "a", number, error=f"Error{number}")
    ids = [letter_id.decode() for letter_id in db.zrange(keys.dead_times, 0, -1)]
    assert set(ids) >= {"a", *(f"a~{number}" for number in range(2, 10))}
    assert len(ids) == 12
    letters = {letter_id: decode_letter(letter_id, db.hget(keys.dead, letter_id), 0) for letter_id in ids}
    assert letters["a"].error == "Error0"
    assert letters["a~2"].error == "Error1"
    assert {letter.error for letter in letters.values()} == {f"Error{number}" for number in range(12)}
    assert {letter.job for letter in letters.values()} == {"a"}
    assert set(stored_messages(db, keys)) == set(ids) == {each.decode() for each in db.zrange(share(keys), 0, -1)}


def test_the_same_malformed_message_is_one_letter_and_its_first_entry_stays(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    first, again = malformed(b"\xff"), malformed(b"\xff")
    again = (msgspec.structs.replace(again[0], worker="other@host"), again[1])
    leases.store_dead_letter(*first, None)
    leases.store_dead_letter(*again, None)
    assert stored_messages(db, keys) == {first[0].id: b"\xff"}
    assert decode_letter(first[0].id, db.hget(keys.dead, first[0].id), 0).worker == first[0].worker


def share(keys: Keys, *, is_malformed: bool = False, queue: str = QUEUE) -> str:
    return keys.dead_share(queue, malformed=is_malformed)


def test_neither_other_models_nor_malformed_messages_flush_the_letters_of_a_model(
    db: redis.Redis, keys: Keys
) -> None:
    leases = Leases(db, keys, DeadLetterLimits(max_count=3, max_age_seconds=3600))
    for number in range(3):
        fail(db, keys, leases, f"mine-{number}", number)
    for number in range(10):
        leases.store_dead_letter(*malformed(b"\xff%d" % number), None)
        other = msgspec.structs.replace(malformed(b"\xfe%d" % number)[0], queue="predict.other")
        leases.store_dead_letter(other, b"\xfe%d" % number, None)
    fail(db, keys, leases, "mine-3", 9)
    stored = stored_messages(db, keys)
    assert {letter for letter in stored if letter.startswith("mine")} == {"mine-1", "mine-2", "mine-3"}
    assert db.zcard(share(keys, is_malformed=True)) == 3
    leases.trim_all_dead_letters([QUEUE, "predict.other"])
    assert db.zcard(share(keys, is_malformed=True, queue="predict.other")) == 3
    assert len(stored_messages(db, keys)) == 9
    assert db.get(keys.dead_dropped) == b"15"


def test_letters_of_models_that_no_worker_serves_grow_old_too_and_one_worker_looks_for_them(
    db: redis.Redis, keys: Keys
) -> None:
    leases = Leases(db, keys, DeadLetterLimits(max_count=3, max_age_seconds=3600))
    letter, message = malformed(b"\xff")
    leases.store_dead_letter(msgspec.structs.replace(letter, queue="predict.former"), message, None)
    db.zadd(share(keys, is_malformed=True, queue="predict.former"), {letter.id: 1})
    db.sadd(keys.models, "former", b"\xff")
    leases.trim_all_dead_letters([])
    assert db.zcard(keys.dead_times) == 0
    leases.store_dead_letter(letter, message, None)
    db.zadd(share(keys, is_malformed=True), {letter.id: 1})
    leases.trim_all_dead_letters([QUEUE])
    assert db.zcard(keys.dead_times) == 1
    db.delete(keys.dead_trimmed)
    leases.trim_all_dead_letters([QUEUE])
    assert db.zcard(keys.dead_times) == 0


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
    db.delete(*(key for key in db.scan_iter() if b"dead" in key), keys.delayed(QUEUE))
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
            db.zincrby(share(keys), number - 100, job)
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
    assert leases.trim_dead_letters([QUEUE]) == 0
    for letter, _ in letters[:12]:
        db.zadd(share(keys, is_malformed=True), {letter.id: server_ms(db) - 31 * 86_400_000})
    assert leases.trim_dead_letters([QUEUE], limit=10) == 10
    assert leases.trim_dead_letters([QUEUE], limit=10) == 2
    assert leases.trim_dead_letters([QUEUE], limit=10) == 0
    assert set(stored_messages(db, keys).values()) == {b"%d" % number for number in range(12, 20)}
    assert Leases(db, keys, DeadLetterLimits(max_count=3, max_age_seconds=3600)).trim_dead_letters([QUEUE]) == 5
    assert len(stored_messages(db, keys)) == 3
    assert db.get(keys.dead_dropped) == b"17"


def test_a_malformed_message_is_stored_and_its_lease_ends(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"\xff")
    leases.store_dead_letter(*malformed(b"\xff"), claim_jobs(leases).lease)
    leases.store_dead_letter(*malformed(b"\xfe"), None)
    assert set(stored_messages(db, keys).values()) == {b"\xfe", b"\xff"}
    assert db.zscore(keys.dead_times, malformed(b"\xfe")[0].id) == pytest.approx(server_ms(db), abs=5000)
    assert db.exists(keys.leases, keys.lease("me/1")) == 0
