"""Ended jobs for tests of listeners: jobs that have listeners, and entries as the scripts store them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import redis

from headrace.connection.commands import Command
from headrace.dead_letters import scripts as letters
from headrace.dead_letters.replay import PreparedEntry
from headrace.results import listen_scripts
from headrace.results.letter_scripts import DeadLetterLimits
from headrace.wire.dead_letter import DeadLetter, attach_message
from headrace.wire.keys import Keys
from headrace.wire.listening import LISTEN_QUEUE, Entry
from headrace.wire.record import DIGEST_BYTES, Record
from tests.support.stored_dead_letters import make_letter

KEYS = Keys()
LIMITS = DeadLetterLimits(max_count=10)


def encode_record(listen: str | None = "orders", notify: str | None = None) -> bytes:
    """Return the record of a job with listeners, or without."""
    return b"d" * DIGEST_BYTES + msgspec.json.encode(Record(listen=listen, notify=notify, model="churn"))


def open_job(db: redis.Redis, job: str, *, record: bytes | None = None) -> None:
    """Store what an accepted job with listeners leaves in Redis, without its message."""
    db.set(KEYS.job(job), encode_record() if record is None else record, ex=1000)
    db.zadd(KEYS.listen_open, {job: 1})


def store_entry(
    db: redis.Redis, job: str, *, name: str = "orders", due_ms: int = 1, deliveries: int = 0, keys: Keys = KEYS
) -> Entry:
    """Store an entry. Return it."""
    entry = Entry(name=name, due_ms=due_ms, deliveries=deliveries, model="churn", job=job)
    db.zadd(keys.listen_due, {entry.encode(): 0})
    return entry


def stored_entries(db: redis.Redis, keys: Keys = KEYS) -> list[Entry]:
    """Return the entries in Redis, in their order."""
    return [Entry.decode(text) for text in db.zrange(keys.listen_due, 0, -1)]


def letter_of(entry: Entry, **fields: object) -> DeadLetter:
    """Return the dead letter of an entry."""
    return make_letter(f"{entry.job}.listen", queue=LISTEN_QUEUE, model=None, **fields)


def _take(db: redis.Redis) -> Command:
    for job in "ab":
        store_entry(db, job)
    db.zadd(KEYS.listen_due, {"orders:made up": 0})
    return listen_scripts.take_command(KEYS, "orders", limit=10, claim_ms=1000)


def _postpone(db: redis.Redis) -> Command:
    entries = [(store_entry(db, job, deliveries=1), 1000, 1) for job in "ab"]
    store_entry(db, "c")
    return listen_scripts.postpone_command(KEYS, "orders", entries)


def give_up(entry: Entry) -> Command:
    """Return the command that makes a dead letter of an entry."""
    return listen_scripts.give_up_command(KEYS, entry, letter_of(entry), limits=LIMITS)


def _give_up(db: redis.Redis) -> Command:
    entry = store_entry(db, "a", deliveries=8)
    store_entry(db, "b")
    db.hset(KEYS.dead, "x", "{}")
    db.hset(KEYS.dead_messages, "x", "{}")
    db.zadd(KEYS.dead_times, {"x": 1})
    db.zadd(KEYS.dead_share(LISTEN_QUEUE, malformed=False), {"x": 1})
    db.set(KEYS.dead_dropped, 1)
    return give_up(entry)


def _sweep(db: redis.Redis) -> Command:
    for job in "abc":
        open_job(db, job)
    db.mset({KEYS.result(job): b'{"status":"SUCCESS"}' for job in "ab"})
    store_entry(db, "z")
    return listen_scripts.sweep_command(KEYS, ["a", "b"])


def replay(db: redis.Redis, jobs: list[str]) -> Command:
    """Store dead letters of entries, and return the command that replays them."""
    replays = []
    for job in jobs:
        entry = Entry(name="orders", due_ms=1, deliveries=8, model="churn", job=job)
        letter = msgspec.structs.replace(letter_of(entry), died_ms=1000)
        db.hset(KEYS.dead, letter.id, letter.encode())
        db.hset(KEYS.dead_messages, letter.id, entry.encode())
        db.zadd(KEYS.dead_times, {letter.id: 1000, "x": 1})
        db.zadd(KEYS.dead_share(LISTEN_QUEUE, malformed=False), {letter.id: 1000, "x": 1})
        replays.append(PreparedEntry(letter=attach_message(letter, entry.encode()), entry=entry))
    db.hset(KEYS.dead, "x", "{}")
    db.hset(KEYS.dead_messages, "x", "{}")
    return letters.replay_entries_command(KEYS, replays)


def _replay(db: redis.Redis) -> Command:
    store_entry(db, "z")
    return replay(db, ["a", "b"])


_LETTERS = ("hash", "hash", "zset", "string")
#: By the name of the script: what stores a valid state and returns the command, and the kinds of its keys.
CASES: dict[str, tuple[Callable[[redis.Redis], Command], tuple[str, ...]]] = {
    "take_entries": (_take, ("zset",)),
    "postpone_entries": (_postpone, ("zset",)),
    "give_up_entry": (_give_up, ("zset", *_LETTERS, "zset")),
    "sweep_entries": (_sweep, ("zset", "hash", "zset", "zset", "zset", *("any",) * 4)),
    "replay_entries": (_replay, ("zset", "hash", "hash", "zset", "zset")),
}


def _take_many(db: redis.Redis, size: int) -> Command:
    for number in range(size):
        store_entry(db, str(number))
    return listen_scripts.take_command(KEYS, "orders", limit=size, claim_ms=1000)


def _take_long(db: redis.Redis, size: int) -> Command:
    db.zadd(KEYS.listen_due, {b"orders:1:" + b"1" * size * 100: 0, b"orders:1:2:" + b":" * size * 100: 0})
    return listen_scripts.take_command(KEYS, "orders", limit=10, claim_ms=1000)


def _sweep_many(outcome: bytes) -> Callable[[redis.Redis, int], Command]:
    def build(db: redis.Redis, size: int) -> Command:
        jobs = [f"job-{number}" for number in range(size // 10)]
        for job in jobs:
            open_job(db, job, record=encode_record() + b"x" * 100_000)
        db.mset({KEYS.result(job): outcome for job in jobs})
        return listen_scripts.sweep_command(KEYS, jobs)

    return build


#: Hostile inputs, as `test_cost.COSTS` has them.
COSTS: dict[str, dict[str, Callable[[redis.Redis, int], Command]]] = {
    "take_entries": {"many": _take_many, "long": _take_long},
    "postpone_entries": {
        "many": lambda db, size: listen_scripts.postpone_command(
            KEYS, "orders", [(store_entry(db, str(number)), 1, 1) for number in range(size)]
        )
    },
    "give_up_entry": {"long": lambda db, size: give_up(store_entry(db, "x" * size * 10, deliveries=8))},
    "sweep_entries": {
        "deep": _sweep_many(b'{"x":' + b"[" * 10_000),
        "stored": _sweep_many(b'{"status":"REVOKED","x":"' + b"x" * 10_000),
    },
    "replay_entries": {"many": lambda db, size: replay(db, [str(number) for number in range(size)])},
}
