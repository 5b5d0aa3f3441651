"""Steps of tests that run the operations on leases: push, claim, publish, expire, and each operation in turn."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import redis

from headrace.results.letter_scripts import DeadLetterLimits
from headrace.wire.dead_letter import DeadLetter, malformed_letter
from headrace.wire.keys import Keys
from headrace.wire.outcome import Failure, Prediction, Success, encode_outcome
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease, NothingClaimed, parse_lease
from headrace_worker.transport.leases import Leases

QUEUE = "predict.churn"
#: When outcomes are published.
NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: Milliseconds until a lease expires: longer than a test.
LEASE_MS = 60_000


def push(db: redis.Redis, keys: Keys, *messages: bytes, priority: int = 0, queue: str = QUEUE) -> None:
    """Push messages to the list of a priority, as a producer does."""
    db.lpush(keys.lists(queue)[priority // 3], *messages)


def claim_jobs(leases: Leases, name: str = "me/1", jobs: int = 100, **options: object) -> Claim:
    """Claim up to this many jobs under a lease of this name. There must be some."""
    limits = [ClaimLimits(queue=QUEUE, jobs=jobs, bytes=1 << 30)]
    claim = leases.claim(name, limits, lease_ms=LEASE_MS, **options)
    assert isinstance(claim, Claim)
    return claim


def finds_nothing(leases: Leases) -> bool:
    """Claim from the queue. Returns whether nothing was claimed."""
    limits = [ClaimLimits(queue=QUEUE, jobs=100, bytes=1 << 30)]
    return isinstance(leases.claim("me/none", limits, lease_ms=LEASE_MS), NothingClaimed)


def park_lease(leases: Leases, name: str = "me/0") -> Lease:
    """Park a lease at the first list, as nothing waits."""
    lease = Lease(name=name, queue=QUEUE, origins=((1, 1),), blocking=True)
    result = leases.claim("me/none", [ClaimLimits(queue=QUEUE)], lease_ms=LEASE_MS, parked=lease)
    assert result == NothingClaimed((), parked=True)
    return lease


def move_under(db: redis.Redis, keys: Keys, lease: Lease) -> None:
    """Move the next job of the first list under a parked lease, as BLMOVE does."""
    db.lmove(keys.sources(lease.queue)[1], keys.lease(lease.name), "RIGHT", "LEFT")


def expire_leases(db: redis.Redis, keys: Keys) -> None:
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


def server_ms(db: redis.Redis) -> float:
    """Return the server's time in unix milliseconds."""
    seconds, microseconds = db.time()
    return float(seconds * 1000 + microseconds / 1000)


def success(job: str) -> bytes:
    """Return the outcome of a job that succeeded, as stored."""
    prediction = Prediction(model="m", version="1", predictions=[0])
    return encode_outcome(Success(job=job, prediction=prediction), NOW)


def failure(job: str, **fields: object) -> tuple[bytes, tuple[DeadLetter, bytes]]:
    """Return the outcome of a job that failed, as stored, and its dead letter with the message."""
    error = {"reason": "permanent", "error": "ValueError", "module": "builtins", "message": "no", **fields}
    outcome = msgspec.convert({"job": job, **error}, Failure)
    letter = msgspec.convert({"id": job, "queue": QUEUE, "worker": "w@host", **error}, DeadLetter)
    return encode_outcome(outcome, NOW), (letter, f"message of {job}".encode())


def malformed(message: bytes) -> tuple[DeadLetter, bytes]:
    """Return the dead letter of a malformed message, and the message."""
    return malformed_letter(message, ValueError("no job"), queue=QUEUE, worker="w@host"), message


def stored_messages(db: redis.Redis, keys: Keys) -> dict[str, bytes]:
    """Return the messages of the stored dead letters, by letter id. Each must have its line and its time."""
    messages = db.hgetall(keys.dead_messages)
    assert set(messages) == set(db.hkeys(keys.dead)) == set(db.zrange(keys.dead_times, 0, -1))
    return {letter_id.decode(): message for letter_id, message in messages.items()}


def every_operation(db: redis.Redis, keys: Keys, leases: Leases) -> Iterator[str]:
    """Run every operation once, and check its effect. Yields the name of each before it runs."""
    empty, parked = park_lease(leases, "me/empty"), park_lease(leases)
    push(db, keys, *(b"%d" % number for number in range(6)))
    move_under(db, keys, parked)
    db.zadd(keys.delayed(QUEUE), {b"1due": 1})
    yield "requeue_isolated of an empty lease"
    for _ in range(2):
        expire_leases(db, keys)
        assert leases.requeue_isolated(empty, "lease_expired", owner="me", only_if_expired=True) == 0
    assert db.zrange(keys.leases, 0, -1) == [parked.member.encode()]
    yield "claim"
    limits = [ClaimLimits(queue=QUEUE, jobs=2, bytes=1 << 20)]
    leases.claim("me/1", limits, lease_ms=LEASE_MS, parked=parked)
    lease = Lease(name="me/1", queue=QUEUE, origins=((1, 1), (1, 1)))
    assert db.lrange(keys.lease("me/1"), 0, -1) == [b"0", b"1"]
    assert db.zrange(keys.leases, 0, -1) == [lease.member.encode()]
    assert not db.exists(keys.lease(parked.name))
    yield "renew"
    assert leases.renew([lease], lease_ms=LEASE_MS) == []
    yield "publish"
    outcome, letter = failure("0")
    letters = [letter, malformed(b"1" * 5000)]
    delayed = [(10**12, b"1" + b"later" * 1000)]
    assert leases.publish(lease, {"0": outcome}, ttl=10, dead_letters=letters, delayed=delayed) == [True]
    assert len(stored_messages(db, keys)) == 2
    assert db.zcard(keys.delayed(QUEUE)) == 2
    lease = claim_jobs(leases, "me/2", jobs=2).lease
    yield "requeue"
    assert leases.requeue(lease) == 2
    lease = claim_jobs(leases, "me/3", jobs=2).lease
    yield "expired"
    expire_leases(db, keys)
    assert leases.find_expired().leases == [lease]
    yield "requeue_isolated"
    assert leases.requeue_isolated(lease, "lease_expired", owner="me", only_if_expired=True) == 2
    assert db.llen(keys.isolated(QUEUE)) == 2
    claim = claim_jobs(leases, "me/4", jobs=1)
    yield "store_dead_letter"
    leases.store_dead_letter(*malformed(claim.queued_messages[0]), claim.lease)
    yield "trim_dead_letters"
    assert Leases(db, keys, DeadLetterLimits(max_count=1, max_age_seconds=100)).trim_dead_letters([QUEUE]) == 1
    yield "move_due"
    assert leases.move_due(QUEUE) == 1
    lease = claim_jobs(leases, "me/5", jobs=1).lease
    yield "finish"
    assert leases.finish(lease)
