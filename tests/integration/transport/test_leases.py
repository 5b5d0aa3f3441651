"""The scripts of a claim's life, on every Redis that is here."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec
import pytest
import redis

from headrace.wire.attempts import Attempt, decode_queued_message, encode_queued_message
from headrace.wire.dead_letter import DeadLetter, decode_letter, malformed_letter
from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled, Failure, Prediction, Success, encode_outcome
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease, NothingClaimed, parse_lease
from headrace_worker.transport.leases import Leases
from headrace_worker.transport.publish_script import DeadLetterLimits
from tests.support.redis_servers import SERVERS, find_server

QUEUE = "predict.churn"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LASTS = 60_000


@pytest.fixture(scope="module", params=SERVERS)
def any_redis(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no", server=find_server(request.param)) as running:
        yield running


@pytest.fixture
def db(any_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(any_redis.url) as client:
        client.flushall()
        client.script_flush()
        yield client


@pytest.fixture(params=["", "{apart}:"])
def keys(request: pytest.FixtureRequest) -> Keys:
    return Keys(request.param)


@pytest.fixture
def leases(db: redis.Redis, keys: Keys) -> Leases:
    return Leases(db, keys)


def push(db: redis.Redis, keys: Keys, *frames: bytes, priority: int = 0, queue: str = QUEUE) -> None:
    """As a producer does."""
    db.lpush(keys.lists(queue)[priority // 3], *frames)


def take(leases: Leases, name: str = "me/1", jobs: int = 100, **options: object) -> Claim:
    got = leases.claim(name, [ClaimLimits(queue=QUEUE, jobs=jobs, bytes=1 << 30)], lease_ms=LASTS, **options)
    assert isinstance(got, Claim)
    return got


def garbage(message: bytes) -> tuple[DeadLetter, bytes]:
    """The letter of a message nobody can read, and the message."""
    return malformed_letter(message, ValueError("no job"), queue=QUEUE, worker="w@host"), message


def failed(job: str, **more: object) -> tuple[bytes, tuple[DeadLetter, bytes]]:
    """The outcome of a job that failed, as stored, and its letter."""
    told = {"reason": "permanent", "error": "ValueError", "module": "builtins", "message": "no"}
    failure = msgspec.convert({"job": job, **told, **more}, Failure)
    kept = msgspec.convert({"id": job, "queue": QUEUE, "worker": "w@host", **told, **more}, DeadLetter)
    return encode_outcome(failure, NOW), (kept, f"message of {job}".encode())


def buried(db: redis.Redis, keys: Keys) -> dict[str, bytes]:
    """The messages of the dead letters, by letter id; each has its line and its moment."""
    messages = db.hgetall(keys.dead_messages)
    assert set(messages) == set(db.hkeys(keys.dead)) == set(db.zrange(keys.dead_times, 0, -1))
    return {key.decode(): message for key, message in messages.items()}


def standing(leases: Leases, name: str = "me/0") -> Lease:
    """A lease that stands at the first list, as nothing waits."""
    lease = Lease(name=name, queue=QUEUE, origins=((1, 1),), blocking=True)
    got = leases.claim("me/n", [ClaimLimits(queue=QUEUE)], lease_ms=LASTS, parked=lease)
    assert got == NothingClaimed((), parked=True)
    return lease


def now_ms(db: redis.Redis) -> float:
    seconds, micros = db.time()
    return float(seconds * 1000 + micros / 1000)


def nothing(leases: Leases, name: str = "me/n") -> bool:
    got = leases.claim(name, [ClaimLimits(queue=QUEUE, jobs=100, bytes=1 << 30)], lease_ms=LASTS)
    return isinstance(got, NothingClaimed)


def end_of_time(db: redis.Redis, keys: Keys) -> None:
    """Let every lease expire, with the extension it may have, also in a full Redis."""
    expire = db.register_script("""
    local was_extended = redis.call('GET', KEYS[2]) == redis.call('ZSCORE', KEYS[1], ARGV[1])
    redis.call('PERSIST', KEYS[1])
    redis.call('ZADD', KEYS[1], 1, ARGV[1])
    if was_extended then redis.call('SET', KEYS[2], 1) end
    """)
    for member in db.zrange(keys.leases, 0, -1):
        lease = parse_lease(member)
        assert lease is not None
        expire([keys.leases, keys.grace(lease.name)], [member])


def success(job: str) -> bytes:
    return encode_outcome(Success(job=job, prediction=Prediction(model="m", version="1", predictions=[0])), NOW)


# --- claim ---------------------------------------------------------------------------------------------


def test_frames_come_back_to_the_byte(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    frames = [b"{}", b"\x00\x01\xff\n\r\n", b"\x01", b"\x01\n", b"$-1\r\n", b" ", bytes(range(256)) * 4]
    push(db, keys, *frames)
    claim = take(leases)
    assert list(claim.queued_messages) == frames
    assert db.lrange(keys.lease("me/1"), 0, -1) == frames


def test_an_empty_message_is_claimed_like_any_other(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"", b"a", b"")
    assert list(take(leases).queued_messages) == [b"", b"a", b""]


def test_the_lowest_number_of_priority_goes_first_and_order_is_kept_within(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    for priority in (9, 3, 0, 6):
        push(db, keys, *(b"%d-%d" % (priority, n) for n in range(2)), priority=priority)
    claim = take(leases)
    assert list(claim.queued_messages) == [b"0-0", b"0-1", b"3-0", b"3-1", b"6-0", b"6-1", b"9-0", b"9-1"]
    assert claim.lease.origins == ((1, 2), (2, 2), (3, 2), (4, 2))


def test_a_claim_can_begin_with_the_lowest_priority(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"urgent")
    push(db, keys, b"file", priority=9)
    assert list(take(leases, jobs=1, lowest_first=True).queued_messages) == [b"file"]


def test_the_first_queue_asked_for_goes_first(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", queue="predict.a")
    push(db, keys, b"b", queue="predict.b")
    got = leases.claim("me/1", [ClaimLimits(queue="predict.b"), ClaimLimits(queue="predict.a")], lease_ms=LASTS)
    assert isinstance(got, Claim)
    assert (got.lease.queue, list(got.queued_messages)) == ("predict.b", [b"b"])


def test_an_urgent_job_of_the_second_queue_goes_before_a_lesser_one_of_the_first(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a", queue="predict.a", priority=9)
    push(db, keys, b"b", queue="predict.b")
    got = leases.claim("me/1", [ClaimLimits(queue="predict.a"), ClaimLimits(queue="predict.b")], lease_ms=LASTS)
    assert isinstance(got, Claim)
    assert list(got.queued_messages) == [b"b"]


def test_no_more_jobs_are_taken_than_asked_for(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    frames = [b"%d" % n for n in range(3500)]
    push(db, keys, *frames)
    claim = take(leases, jobs=3000)
    assert list(claim.queued_messages) == frames[:3000]
    assert db.llen(keys.lease("me/1")) == 3000
    assert leases.requeue(claim.lease) == 3000
    assert db.lrange(keys.lists(QUEUE)[0], 0, -1) == frames[::-1]


def test_bytes_bound_a_claim_but_one_job_is_always_taken(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, *[b"x" * 1000] * 10)
    got = leases.claim("me/1", [ClaimLimits(queue=QUEUE, jobs=100, bytes=2500)], lease_ms=LASTS)
    assert isinstance(got, Claim)
    assert len(got.queued_messages) == 3
    got = leases.claim("me/2", [ClaimLimits(queue=QUEUE, jobs=100, bytes=1)], lease_ms=LASTS)
    assert isinstance(got, Claim)
    assert len(got.queued_messages) == 1


def test_a_queue_left_to_fill_is_held_until_it_is_full(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    asks = [ClaimLimits(queue=QUEUE, jobs=3, bytes=1 << 20, full_only=True), ClaimLimits(queue="predict.other")]
    assert leases.claim("me/1", asks, lease_ms=LASTS) == NothingClaimed(())
    push(db, keys, b"1")
    push(db, keys, b"2", priority=9)
    assert leases.claim("me/2", asks, lease_ms=LASTS) == NothingClaimed((QUEUE,))
    push(db, keys, b"other", queue="predict.other")
    got = leases.claim("me/3", asks, lease_ms=LASTS)
    assert isinstance(got, Claim)
    assert got.lease.queue == "predict.other"
    push(db, keys, b"3")
    got = leases.claim("me/4", asks, lease_ms=LASTS)
    assert isinstance(got, Claim)
    assert list(got.queued_messages) == [b"1", b"3", b"2"]


def test_without_a_lease_nothing_is_kept(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", queue="ordinary")
    got = leases.claim("me/1", [ClaimLimits(queue="ordinary", leased=False)], lease_ms=LASTS)
    assert isinstance(got, Claim)
    assert list(db.scan_iter()) == []


def test_a_claim_that_finds_nothing_leaves_nothing(db: redis.Redis, leases: Leases) -> None:
    assert nothing(leases)
    assert list(db.scan_iter()) == []


def test_a_claim_says_whether_a_job_was_cancelled_lately(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    assert not take(leases, jobs=1).check_outcomes
    db.set(keys.cancelled, 1)
    assert take(leases, "me/2").check_outcomes


def test_a_key_of_another_kind_stops_no_claim_that_has_popped(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    db.set(keys.lists(QUEUE)[2], "in the way")
    assert list(take(leases).queued_messages) == [b"a"]
    assert db.lrange(keys.lease("me/1"), 0, -1) == [b"a"]


def test_where_leases_cannot_be_kept_nothing_is_popped(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    db.set(keys.leases, "in the way")
    with pytest.raises(redis.ResponseError):
        take(leases)
    assert db.llen(keys.lists(QUEUE)[0]) == 1


# --- renew, publish, finish ----------------------------------------------------------------------------


def test_renewal_moves_the_moment_a_lease_lapses_and_names_the_lost(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a")
    lease = take(leases).lease
    other = Lease(name="me/2", queue=QUEUE, origins=((1, 1),))
    db.zadd(keys.leases, {lease.member: 1})
    assert leases.renew([lease, other], lease_ms=5000) == [other]
    seconds, micros = db.time()
    score = db.zscore(keys.leases, lease.member)
    assert score == pytest.approx(seconds * 1000 + micros / 1000 + 5000, abs=1000)
    assert db.zscore(keys.leases, other.member) is None


def test_publishing_stores_announces_and_ends_the_lease(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b", b"no job", b"early")
    lease = take(leases).lease
    db.hset(keys.job("a"), "model", "churn")
    with db.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(keys.result("a"))
        heard.get_message(timeout=1)
        got = leases.publish(
            lease,
            {"a": success("a"), "b": success("b")},
            ttl=100,
            dead_letters=[garbage(b"no job")],
            delayed=[(60_000, b"early")],
        )
        assert got == [True, True]
        message = heard.get_message(timeout=5)
        assert message is not None
        assert message["data"] == success("a")
    assert db.get(keys.result("b")) == success("b")
    assert 0 < db.ttl(keys.result("a")) <= 100
    assert 0 < db.ttl(keys.job("a")) <= 100
    assert list(buried(db, keys).values()) == [b"no job"]
    assert db.zrange(keys.delayed(QUEUE), 0, -1) == [b"early"]
    assert db.zscore(keys.delayed(QUEUE), b"early") == pytest.approx(now_ms(db) + 60_000, abs=5000)
    assert db.exists(keys.leases, keys.lease("me/1")) == 0


def test_the_first_outcome_of_a_job_stands(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    lease = take(leases).lease
    cancelled = encode_outcome(Cancelled(job="a"), NOW)
    db.set(keys.result("a"), cancelled)
    assert leases.publish(lease, {"a": success("a"), "b": success("b")}, ttl=100) == [False, True]
    assert db.get(keys.result("a")) == cancelled


def test_a_key_of_another_kind_in_the_place_of_one_outcome_does_not_lose_the_rest(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a", b"b")
    lease = take(leases).lease
    db.lpush(keys.result("a"), "in the way")
    assert leases.publish(lease, {"a": success("a"), "b": success("b")}, ttl=100) == [True, True]


@pytest.mark.parametrize(
    "in_the_way",
    [
        lambda keys: keys.dead,
        lambda keys: keys.dead_messages,
        lambda keys: keys.dead_times,
        lambda keys: keys.delayed(QUEUE),
    ],
    ids=["dead", "messages", "died", "delayed"],
)
def test_publishing_that_fails_half_way_leaves_the_jobs_under_their_lease_and_loses_no_letter(
    db: redis.Redis, keys: Keys, leases: Leases, in_the_way: Callable[[Keys], str]
) -> None:
    push(db, keys, b"a", b"no job")
    lease = take(leases).lease
    stored, kept = failed("a")
    db.set(in_the_way(keys), "in the way")

    def publish() -> list[bool] | None:
        letters = [kept, garbage(b"no job")]
        return leases.publish(lease, {"a": stored}, ttl=100, dead_letters=letters, delayed=[(60_000, b"later")])

    with pytest.raises(redis.ResponseError):
        publish()
    assert db.lrange(keys.lease("me/1"), 0, -1) == [b"a", b"no job"]
    assert leases.renew([lease], lease_ms=LASTS) == []
    db.delete(in_the_way(keys))
    assert publish() is not None
    assert set(buried(db, keys)) == {"a", garbage(b"no job")[0].id}
    assert db.zrange(keys.delayed(QUEUE), 0, -1) == [b"later"]


def test_publishing_again_after_a_lost_reply_says_the_same(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    lease = take(leases).lease
    db.set(keys.result("b"), encode_outcome(Cancelled(job="b"), NOW))
    outcomes = {"a": success("a"), "b": success("b")}
    assert leases.publish(lease, outcomes, ttl=100) == [True, False]
    assert leases.publish(lease, outcomes, ttl=100) == [True, False]


def test_whoever_lost_the_lease_can_do_nothing(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    lost = take(leases).lease
    end_of_time(db, keys)
    assert leases.requeue_isolated(lost, "lease_expired", owner="me", only_if_expired=True) == 2
    before = {key: db.dump(key) for key in db.scan_iter()}
    assert leases.publish(lost, {}, ttl=100, dead_letters=[garbage(b"b")]) is None
    assert leases.publish(lost, {}, ttl=100, delayed=[(1, b"b")]) is None
    assert (
        leases.publish(lost, {"a": success("a")}, ttl=100, dead_letters=[garbage(b"b")], delayed=[(1, b"b")])
        is None
    )
    assert not leases.finish(lost)
    assert not leases.requeue(lost)
    assert not leases.requeue_isolated(lost, "crash", owner="me")
    assert leases.renew([lost], lease_ms=LASTS) == [lost]
    assert {key: db.dump(key) for key in db.scan_iter()} == before


def test_a_finished_message_is_gone(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    lease = take(leases).lease
    assert leases.finish(lease)
    assert not leases.finish(lease)
    assert list(db.scan_iter()) == []


# --- release, lapse, lapsed ----------------------------------------------------------------------------


def test_release_puts_everything_back_exactly(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    for priority in (0, 3, 6, 9):
        push(db, keys, *(b"%d-%d" % (priority, n) for n in range(3)), priority=priority)
    before = {key: db.lrange(key, 0, -1) for key in db.scan_iter()}
    lease = take(leases, jobs=8).lease
    assert leases.requeue(lease) == 8
    assert {key: db.lrange(key, 0, -1) for key in db.scan_iter()} == before


def test_release_of_a_job_that_was_tried_keeps_it_apart(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b")
    leases.requeue_isolated(take(leases).lease, "crash", owner="me")
    before = db.lrange(keys.isolated(QUEUE), 0, -1)
    claim = take(leases)
    assert len(claim.queued_messages) == 1
    leases.requeue(claim.lease)
    assert db.lrange(keys.isolated(QUEUE), 0, -1) == before


def test_a_lapse_writes_the_attempt_down_and_its_jobs_run_alone_and_first(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    hostile = b"\x00\xff\n\x01"
    push(db, keys, b"a", hostile)
    assert leases.requeue_isolated(take(leases).lease, "crash", owner="me") == 2
    push(db, keys, b"fresh")
    first, second = take(leases, "me/2"), take(leases, "me/3")
    for claim, message in ((first, b"a"), (second, hostile)):
        (frame,) = claim.queued_messages
        assert decode_queued_message(frame)[1] == message
        [attempt], _ = decode_queued_message(frame)
        assert (attempt.cause, attempt.owner, attempt.claim_size) == ("crash", "me", 2)
        assert attempt.at_ms / 1000 == pytest.approx(time.time(), abs=60)
    leases.requeue_isolated(first.lease, "timeout", owner="you")
    attempts, message = decode_queued_message(take(leases, "me/4").queued_messages[0])
    assert message == b"a"
    assert [(one.cause, one.owner, one.claim_size) for one in attempts] == [
        ("crash", "me", 2),
        ("timeout", "you", 1),
    ]
    assert list(take(leases, "me/5").queued_messages) == [b"fresh"]


@pytest.mark.parametrize(
    "message",
    [
        b"\x01no newline",
        b"\x01",
        b"\x01\n{}",
        b"\x01;\n{}",
        b"\x01crash,me,1;\n{}",
        b"\x01crash,me,1,1\n{}",
        b"\x01 crash;crash,me,1,1;\n{}",
        b"\x01,me,1,1;\n{}",
    ],
)
def test_what_only_looks_like_a_frame_stays_whole(
    db: redis.Redis, keys: Keys, leases: Leases, message: bytes
) -> None:
    push(db, keys, message)
    leases.requeue_isolated(take(leases).lease, "crash", owner="me")
    attempts, kept = decode_queued_message(take(leases, "me/2").queued_messages[0])
    assert kept == message
    assert [attempt.cause for attempt in attempts] == ["crash"]


def test_an_owner_of_any_name_breaks_no_frame(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    leases.requeue_isolated(take(leases).lease, "cra;sh", owner="me,\nyou;")
    [attempt], message = decode_queued_message(take(leases, "me/2").queued_messages[0])
    assert (attempt.cause, attempt.owner, message) == ("cra_sh", "me__you_", b"a")


def test_only_a_lapsed_lease_is_swept(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    lease = take(leases).lease
    assert leases.expired() == []
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 0
    end_of_time(db, keys)
    assert leases.expired() == [lease]
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 1
    assert leases.expired() == []


def test_an_ordinary_message_goes_back_where_it_came_from(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a", b"b", queue="ordinary", priority=3)
    got = leases.claim("me/1", [ClaimLimits(queue="ordinary")], lease_ms=LASTS)
    assert isinstance(got, Claim)
    end_of_time(db, keys)
    assert leases.requeue_isolated(got.lease, "lease_expired", owner="me", only_if_expired=True) == 1
    assert db.lrange(keys.lists("ordinary")[1], 0, -1) == [b"b", b"a"]


def test_a_lapse_that_fails_half_way_leaves_the_jobs_under_their_lease(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a")
    lease = take(leases).lease
    db.set(keys.isolated(QUEUE), "in the way")
    with pytest.raises(redis.ResponseError):
        leases.requeue_isolated(lease, "crash", owner="me")
    assert leases.find({"me/1"}) == [lease]
    assert db.lrange(keys.lease("me/1"), 0, -1) == [b"a"]


def test_what_others_wrote_among_the_leases_is_passed_over(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    db.zadd(keys.leases, {b"\xff": 1, b"a#b": 1, b"a#b#c": 1, b"a#1#c": 1, b"a#1,2#d": 1})
    assert [lease.queue for lease in leases.expired()] == ["d"]


def test_a_lease_can_be_told_from_its_member() -> None:
    for blocking in (False, True):
        lease = Lease(name="host/1/ab/7", queue="predict.a#b", origins=((0, 1), (4, 22)), blocking=blocking)
        assert parse_lease(lease.member.encode()) == lease


# --- dead letters ---------------------------------------------------------------------------------------


def test_a_letter_is_kept_with_its_message_and_the_moment(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    stored, (kept, message) = failed("a", metadata={"shop": "7"})
    assert leases.publish(take(leases).lease, {"a": stored}, ttl=100, dead_letters=[(kept, message)]) == [True]
    assert buried(db, keys) == {"a": message}
    died_ms = db.zscore(keys.dead_times, "a")
    assert died_ms == pytest.approx(now_ms(db), abs=5000)
    line = db.hget(keys.dead, "a")
    assert b"\n" not in line
    assert decode_letter("a", line, 0) == kept
    assert db.ttl(keys.dead) == db.ttl(keys.dead_times) == -1


def test_a_job_that_was_cancelled_while_it_failed_is_no_dead_letter(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    push(db, keys, b"a", b"b")
    (a, kept_a), (b, kept_b) = failed("a"), failed("b")
    db.set(keys.result("a"), encode_outcome(Cancelled(job="a"), NOW))
    published = leases.publish(take(leases).lease, {"a": a, "b": b}, ttl=100, dead_letters=[kept_a, kept_b])
    assert published == [False, True]
    assert set(buried(db, keys)) == {"b"}


def test_a_job_that_dies_again_has_one_letter_the_last(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    for name, error in (("me/1", "KeyError"), ("me/2", "ValueError")):
        push(db, keys, b"a")
        stored, kept = failed("a", error=error)
        assert leases.publish(take(leases, name).lease, {"a": stored}, ttl=100, dead_letters=[kept]) == [True]
        db.delete(keys.result("a"))  # as a replay does
    assert decode_letter("a", db.hget(keys.dead, "a"), 0).error == "ValueError"
    assert len(buried(db, keys)) == 1


@pytest.mark.parametrize("what", ["retries", "letters", "both"])
def test_a_claim_without_outcomes_asked_again_says_the_same_and_does_nothing_twice(
    db: redis.Redis, keys: Keys, leases: Leases, what: str
) -> None:
    push(db, keys, b"a", b"\xff")
    lease = take(leases).lease
    letters = [] if what == "retries" else [garbage(b"\xff")]
    delayed = [] if what == "letters" else [(60_000, b"\x01error:OSError,me,1,1;\na")]

    def publish() -> list[bool] | None:
        return leases.publish(lease, {}, ttl=100, dead_letters=letters, delayed=delayed)

    assert publish() == []
    before = {key: db.dump(key) for key in db.scan_iter()}
    assert publish() == []
    assert {key: db.dump(key) for key in db.scan_iter()} == before
    db.delete(keys.dead, keys.dead_messages, keys.dead_times, keys.delayed(QUEUE))
    assert publish() is None  # replayed, purged or run since: nothing comes back
    assert list(db.scan_iter()) == []


def test_no_more_letters_are_kept_than_allowed_and_the_oldest_go_first(
    db: redis.Redis, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    leases = Leases(db, keys, DeadLetterLimits(max_count=5, max_age_seconds=3600))
    for number in range(4):
        push(db, keys, b"a", b"b")
        pair = [failed(f"{number}{letter}") for letter in "ab"]
        outcomes = {kept.id: stored for stored, (kept, _) in pair}
        letters = [kept for _, kept in pair]
        with caplog.at_level("WARNING", "headrace.claims"):
            leases.publish(take(leases, f"me/{number}").lease, outcomes, ttl=100, dead_letters=letters)
        for one in "ab":  # each claim is a moment later than the one before
            db.zincrby(keys.dead_times, number - 100, f"{number}{one}")
    assert set(buried(db, keys)) == {"1b", "2a", "2b", "3a", "3b"}
    assert db.get(keys.dead_dropped) == b"3"
    assert "dropped the 1 oldest dead letters" in caplog.text


def test_a_storm_larger_than_what_is_kept_leaves_no_more_than_that(db: redis.Redis, keys: Keys) -> None:
    leases = Leases(db, keys, DeadLetterLimits(max_count=10, max_age_seconds=3600))
    push(db, keys, *(b"%d" % number for number in range(500)))
    storm = [failed(str(number)) for number in range(500)]
    outcomes = {kept.id: stored for stored, (kept, _) in storm}
    leases.publish(take(leases, jobs=500).lease, outcomes, ttl=100, dead_letters=[kept for _, kept in storm])
    assert len(buried(db, keys)) == 10
    assert db.get(keys.dead_dropped) == b"490"


def test_letters_too_old_or_too_many_are_dropped_by_and_by(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"a")
    letters = [garbage(b"%d" % number) for number in range(20)]
    leases.publish(take(leases).lease, {}, ttl=1, dead_letters=letters)
    assert leases.trim_dead_letters() == 0
    for kept, _ in letters[:12]:
        db.zadd(keys.dead_times, {kept.id: now_ms(db) - 31 * 86_400_000})
    assert leases.trim_dead_letters(limit=10) == 10
    assert leases.trim_dead_letters(limit=10) == 2
    assert leases.trim_dead_letters(limit=10) == 0
    assert set(buried(db, keys).values()) == {b"%d" % number for number in range(12, 20)}
    assert Leases(db, keys, DeadLetterLimits(max_count=3, max_age_seconds=3600)).trim_dead_letters() == 5
    assert len(buried(db, keys)) == 3
    assert db.get(keys.dead_dropped) == b"17"


# --- delayed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("priority", "place"), [(0, 0), (2, 0), (3, 1), (8, 2), (9, 3), (99, 3)])
def test_a_delayed_job_goes_to_the_list_of_its_priority(
    db: redis.Redis, keys: Keys, leases: Leases, priority: int, place: int
) -> None:
    frame = json.dumps({"body": "e30=", "properties": {"priority": priority}}).encode()
    db.zadd(keys.delayed(QUEUE), {frame: 1})
    assert leases.move_due(QUEUE) == 1
    assert db.lrange(keys.lists(QUEUE)[place], 0, -1) == [frame]
    assert db.exists(keys.delayed(QUEUE)) == 0


@pytest.mark.parametrize(
    ("causes", "place"),
    [
        (["error:OSError"], 3),
        (["error:crash"], 3),
        (["replay"], 3),
        (["crash"], None),
        (["lease_expired", "replay"], None),
        (["error:OSError", "timeout"], None),
    ],
)
def test_a_retry_goes_to_the_list_of_its_priority_unless_it_is_to_run_alone(
    db: redis.Redis, keys: Keys, leases: Leases, causes: list[str], place: int | None
) -> None:
    attempts = [Attempt(cause=cause, owner="crash", at_ms=1, claim_size=1) for cause in causes]
    frame = encode_queued_message(attempts, b'{"body": "e30=", "properties": {"priority": 9}, "cause": ";crash,"}')
    db.zadd(keys.delayed(QUEUE), {frame: 1})
    assert leases.move_due(QUEUE) == 1
    target = keys.isolated(QUEUE) if place is None else keys.lists(QUEUE)[place]
    assert db.lrange(target, 0, -1) == [frame]


def test_a_due_job_that_has_no_place_to_go_stays_where_it_is(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    db.zadd(keys.delayed(QUEUE), {b"a": 1})
    db.set(keys.lists(QUEUE)[0], "in the way")
    with pytest.raises(redis.ResponseError):
        leases.move_due(QUEUE)
    assert db.zrange(keys.delayed(QUEUE), 0, -1) == [b"a"]


def test_only_what_is_due_leaves_and_no_more_than_asked_for(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    late = (time.time() + 3600) * 1000
    db.zadd(keys.delayed(QUEUE), {b"1": 1, b"2": 2, b"3": 3, b"later": late})
    assert leases.move_due(QUEUE, limit=2) == 2
    assert leases.move_due(QUEUE, limit=2) == 1
    assert leases.move_due(QUEUE, limit=2) == 0
    assert list(take(leases).queued_messages) == [b"1", b"2", b"3"]


def test_what_nobody_can_read_is_buried_and_its_lease_ends(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    push(db, keys, b"\xff")
    leases.store_dead_letter(*garbage(b"\xff"), take(leases).lease)
    leases.store_dead_letter(*garbage(b"\xfe"), None)
    assert set(buried(db, keys).values()) == {b"\xfe", b"\xff"}
    assert db.zscore(keys.dead_times, garbage(b"\xfe")[0].id) == pytest.approx(now_ms(db), abs=5000)
    assert db.exists(keys.leases, keys.lease("me/1")) == 0


# --- Redis in a bad state ------------------------------------------------------------------------------


def life(db: redis.Redis, keys: Keys, leases: Leases) -> Iterator[str]:
    """Each step of a claim's life, once, with what must be so after it."""
    stood = standing(leases)
    push(db, keys, *(b"%d" % n for n in range(6)))
    db.lmove(keys.sources(QUEUE)[1], keys.lease(stood.name), "RIGHT", "LEFT")
    db.zadd(keys.delayed(QUEUE), {b"due": 1})
    yield "claim"
    leases.claim("me/1", [ClaimLimits(queue=QUEUE, jobs=2, bytes=1 << 20)], lease_ms=LASTS, parked=stood)
    lease = Lease(name="me/1", queue=QUEUE, origins=((1, 1), (1, 1)))
    assert db.lrange(keys.lease("me/1"), 0, -1) == [b"0", b"1"]
    assert db.zrange(keys.leases, 0, -1) == [lease.member.encode()]
    assert not db.exists(keys.lease(stood.name))
    yield "renew"
    assert leases.renew([lease], lease_ms=LASTS) == []
    yield "publish"
    stored, kept = failed("0")
    letters = [kept, garbage(b"1" * 5000)]
    delayed = [(10**12, b"later" * 1000)]
    assert leases.publish(lease, {"0": stored}, ttl=10, dead_letters=letters, delayed=delayed) == [True]
    assert len(buried(db, keys)) == 2
    assert db.zcard(keys.delayed(QUEUE)) == 2
    lease = take(leases, "me/2", jobs=2).lease
    yield "release"
    assert leases.requeue(lease) == 2
    lease = take(leases, "me/3", jobs=2).lease
    yield "lapsed"
    end_of_time(db, keys)
    assert leases.expired() == [lease]
    yield "lease_expired"
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 2
    assert db.llen(keys.isolated(QUEUE)) == 2
    claim = take(leases, "me/4", jobs=1)
    yield "bury"
    leases.store_dead_letter(*garbage(claim.queued_messages[0]), claim.lease)
    yield "bound"
    assert Leases(db, keys, DeadLetterLimits(max_count=1, max_age_seconds=100)).trim_dead_letters() == 2
    yield "due"
    assert leases.move_due(QUEUE) == 1
    lease = take(leases, "me/5", jobs=1).lease
    yield "finish"
    assert leases.finish(lease)


def test_scripts_that_redis_has_forgotten_are_sent_again(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    for _ in life(db, keys, leases):
        db.script_flush()


def test_a_full_redis_can_be_drained_and_loses_nothing(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    steps = life(db, keys, leases)
    next(steps)
    db.set("ballast", b"x" * (8 << 20))
    db.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            push(db, keys, b"one more")
        for _ in steps:
            pass
    finally:
        db.config_set("maxmemory", 0)


def test_an_empty_lease_that_stood_goes_when_it_lapses_for_the_second_time(
    db: redis.Redis, keys: Keys, leases: Leases
) -> None:
    lease = standing(leases)
    for left in (10_000, None):
        end_of_time(db, keys)
        assert leases.expired() == [lease]
        assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 0
        score = db.zscore(keys.leases, lease.member)
        assert score is None if left is None else score - now_ms(db) == pytest.approx(left, abs=500)


def test_what_came_under_a_lease_that_stood_lapses_as_any(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    lease = standing(leases)
    push(db, keys, b"0")
    db.lmove(keys.sources(QUEUE)[1], keys.lease(lease.name), "RIGHT", "LEFT")
    end_of_time(db, keys)
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 1
    assert db.llen(keys.isolated(QUEUE)) == 1
    assert not db.exists(keys.leases, keys.lease(lease.name))


def test_every_key_a_script_touches_is_declared(db: redis.Redis, keys: Keys, leases: Leases) -> None:
    declared: set[str] = set()
    touched: list[tuple[str, str]] = []
    with db.monitor() as monitor:
        done = threading.Thread(target=lambda: (list(life(db, keys, leases)), db.echo("the end")))
        done.start()
        for seen in monitor.listen():
            words = seen["command"].split(" ")
            if seen["command"].startswith("ECHO"):
                break
            if words[0] == "EVALSHA" and seen["client_type"] != "lua":
                declared = set(words[3 : 3 + int(words[2])])
            elif seen["client_type"] == "lua" and words[0] != "TIME":
                touched.append((words[1], seen["command"]))
                assert words[1] in declared, f"{seen['command'][:80]} touches a key that is not declared"
        done.join()
    assert len(touched) > 30


def test_a_user_confined_to_our_keys_can_do_it_all(db: redis.Redis, any_redis: EmbeddedRedis, keys: Keys) -> None:
    ours = [f"~{keys.prefix}{key}" for key in ("predict.*", "headrace:*", "celery-task-meta-*")]
    channels = ["resetchannels", f"&{keys.prefix}celery-task-meta-*"]
    rules = ["reset", "on", ">secret", "+@all", "-@admin", *ours, *channels]
    db.execute_command("ACL", "SETUSER", "worker", *rules)
    with redis.Redis(port=any_redis.port, username="worker", password="secret") as confined:
        for _ in life(confined, keys, Leases(confined, keys)):
            pass


def test_the_scripts_run_in_cluster_mode_where_the_prefix_is_a_hash_tag() -> None:
    keys = Keys("{one-slot}:")
    with (
        EmbeddedRedis(
            "--cluster-enabled", "yes", server=find_server("falkordb"), port=_port_for_a_cluster()
        ) as cluster,
        redis.Redis.from_url(cluster.url) as node,
    ):
        node.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        deadline = time.monotonic() + 20
        while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok" and time.monotonic() < deadline:
            time.sleep(0.02)
        for _ in life(node, keys, Leases(node, keys)):
            pass


def _port_for_a_cluster() -> int:
    """The bus of a cluster listens 10,000 ports higher: both are below those that connections are given."""
    for port in random.sample(range(12_000, 22_000), 100):
        with socket.socket() as probe, socket.socket() as bus, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port
    raise AssertionError("no free port")
