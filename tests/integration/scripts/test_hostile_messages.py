"""The scripts of claims and leases take linear time, whatever the messages hold, and however many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis

from headrace.connection.commands import execute
from headrace.wire.attempts import encode_delayed
from headrace_worker.transport.claim_script import claim_command
from headrace_worker.transport.claims import ClaimLimits, Lease
from headrace_worker.transport.lease_scripts import (
    expired_command,
    finish_command,
    move_due_command,
    renew_command,
    requeue_command,
    requeue_isolated_command,
)
from tests.support.lease_operations import LEASE_MS, QUEUE
from tests.support.script_cases import KEYS

#: The size of the small input, and how many times as large the large one is.
SIZE, FACTOR = 5_000, 8
#: Microseconds of processor time that are noise, and how much more the time may grow than the input.
NOISE_US, TOLERANCE = 1_000, 4

#: Messages that take quadratic time where they are matched with a pattern, or read in steps. Given a size.
HOSTILE: dict[str, Callable[[int], list[bytes]]] = {
    "a history without separators": lambda size: [b"\x01" + b"a" * size + b";\n"],
    "a line of a history without an end": lambda size: [b"\x01" + b"a," * size],
    "many empty lines of a history": lambda size: [b"\x01\n" * size],
    "many attempts": lambda size: [b"\x01a,b,1,1\n" * size + b"\n{}"],
    "many priorities": lambda size: [b'"priority":' * size],
    "a priority of many digits": lambda size: [b'"priority":' + b"9" * size],
    "long blanks": lambda size: [b'"priority":' + b" " * size],
    "deep": lambda size: [b"[" * size],
    "many quotes": lambda size: [b'"id":"' * size],
    "no text": lambda size: [b"\x00" * size],
    "many messages": lambda size: [b"%d" % number for number in range(size // 5)],
}
#: A source that producers can write, and one that they cannot.
SOURCES = (1, 5)


def lease_of(messages: Sequence[bytes], source: int) -> Lease:
    return Lease(name="me/1", queue=QUEUE, origins=((source, len(messages)),))


def hold(db: redis.Redis, messages: Sequence[bytes], source: int) -> Lease:
    """Store a lease that has expired, with these messages."""
    lease = lease_of(messages, source)
    db.zadd(KEYS.leases, {lease.member: 1})
    db.rpush(KEYS.lease(lease.name), *messages)
    return lease


def claim(db: redis.Redis, messages: Sequence[bytes], source: int) -> Callable[[], Any]:
    db.lpush(KEYS.sources(QUEUE)[source], *messages)
    limits = [ClaimLimits(queue=QUEUE, jobs=len(messages), bytes=1 << 30)]
    command = claim_command(KEYS, "me/1", limits, lease_ms=LEASE_MS, lowest_first=False)
    return lambda: execute(db, command)[1][1]


def requeue(db: redis.Redis, messages: Sequence[bytes], source: int) -> Callable[[], Any]:
    lease = hold(db, messages, source)
    command = requeue_command(KEYS, lease, only_if_expired=True, behind=False, first_message=b"")
    return lambda: execute(db, command)


def requeue_isolated(db: redis.Redis, messages: Sequence[bytes], source: int) -> Callable[[], Any]:
    lease = hold(db, messages, source)
    command = requeue_isolated_command(KEYS, lease, only_if_expired=True, cause="crash", owner="me")
    return lambda: execute(db, command)


def finish(db: redis.Redis, messages: Sequence[bytes], source: int) -> Callable[[], Any]:
    command = finish_command(KEYS, hold(db, messages, source))
    return lambda: execute(db, command) * len(messages)


def move_due(db: redis.Redis, messages: Sequence[bytes], source: int) -> Callable[[], Any]:
    db.zadd(KEYS.delayed(QUEUE), {encode_delayed(source, message): 1 for message in messages})
    command = move_due_command(KEYS, QUEUE, limit=len(messages))
    return lambda: execute(db, command)


def move_due_of_another_form(db: redis.Redis, messages: Sequence[bytes], source: int) -> Callable[[], Any]:
    db.zadd(KEYS.delayed(QUEUE), {b"x" + message: 1 for message in messages})
    command = move_due_command(KEYS, QUEUE, limit=len(messages))
    return lambda: execute(db, command)


def measure_us(db: redis.Redis, call: Callable[[], Any], expected: int) -> float:
    """Return the processor time of Redis, in microseconds, during a call, whose result is to be as expected."""
    before = processor_us(db)
    assert call() == expected
    return processor_us(db) - before


def processor_us(db: redis.Redis) -> float:
    usage = db.info("cpu")
    return 1e6 * (usage["used_cpu_user"] + usage["used_cpu_sys"])


def assert_linear(db: redis.Redis, run: Callable[[int], float]) -> None:
    run(SIZE)  # the first call compiles the script
    small = min(run(SIZE) for _ in range(3))
    large = min(run(FACTOR * SIZE) for _ in range(2))
    assert large < TOLERANCE * FACTOR * max(small, NOISE_US)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(
    "prepare",
    [claim, requeue, requeue_isolated, finish, move_due, move_due_of_another_form],
    ids=lambda p: p.__name__,
)
def test_a_script_takes_linear_time(
    server: redis.Redis, prepare: Callable[..., Callable[[], Any]], hostile: str, source: int
) -> None:
    def run(size: int) -> float:
        server.flushall()
        messages = HOSTILE[hostile](size)
        return measure_us(server, prepare(server, messages, source), expected=len(messages))

    assert_linear(server, run)


def test_renewing_many_leases_takes_linear_time(server: redis.Redis) -> None:
    def run(size: int) -> float:
        server.flushall()
        members = [f"me/{number}#1,1#{QUEUE}".encode() for number in range(size // 5)]
        server.zadd(KEYS.leases, dict.fromkeys(members, 1))
        command = renew_command(KEYS, members, lease_ms=LEASE_MS)
        return measure_us(server, lambda: len(execute(server, command)), expected=0)

    assert_linear(server, run)


def test_listing_leases_takes_time_by_their_number_not_by_what_they_hold(server: redis.Redis) -> None:
    def run(size: int) -> float:
        server.flushall()
        server.zadd(KEYS.leases, {b"#%d" % number + b"#" * size: 1 for number in range(20)})
        command = expired_command(KEYS, skip=0, limit=20)
        return measure_us(server, lambda: len(execute(server, command)), expected=1 + 20)

    assert_linear(server, run)
