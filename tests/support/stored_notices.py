"""Notices for tests: jobs whose outcome is to be notified, and notices as the scripts store them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import redis

from headrace.connection.commands import Command
from headrace.dead_letters import scripts as letters
from headrace.dead_letters.replay import PreparedNotice
from headrace.results import notice_scripts
from headrace.results.letter_scripts import DeadLetterLimits
from headrace.results.notice_scripts import (
    EndpointError,
    bury_command,
    finish_command,
    postpone_command,
    take_command,
)
from headrace.results.notices import names_of_notices
from headrace.wire.dead_letter import DeadLetter, attach_message
from headrace.wire.keys import Keys
from headrace.wire.notice import NOTICE_QUEUE, Notice, decode_notice, notice_id
from headrace.wire.record import DIGEST_BYTES, Record
from tests.support.stored_dead_letters import make_letter

KEYS = Keys()
ERROR = EndpointError(error="http-500", at_ms=1)
LIMITS = DeadLetterLimits(max_count=10)


def encode_record(notify: str | None = "orders", metadata: dict[str, str] | None = None) -> bytes:
    """Return the record of a job with a notice, or without."""
    return b"d" * DIGEST_BYTES + msgspec.json.encode(Record(notify=notify, model="churn", metadata=metadata))


def open_job(db: redis.Redis, job: str, *, record: bytes | None = None, at_ms: int = 1) -> None:
    """Store what an accepted job with a notice leaves in Redis, without its message."""
    db.set(KEYS.job(job), encode_record() if record is None else record, ex=1000)
    db.zadd(KEYS.notices_open, {job: at_ms})


def store_notice(db: redis.Redis, job: str, stored: bytes | None = None, *, due_ms: int = 1) -> Notice:
    """Store a notice of a success that is due. Return it."""
    record = encode_record()[DIGEST_BYTES:].decode()
    message = f'{{"job":"{job}","status":"success","at_ms":1,"record":{record}}}'.encode()
    name = notice_id(job, "success")
    db.hset(KEYS.notices, name, message if stored is None else stored)
    db.zadd(KEYS.notices_due, {name: due_ms})
    return decode_notice(name, message)


def stored_notices(db: redis.Redis) -> dict[str, Notice]:
    """Return the notices in Redis, by id. Each is in both keys."""
    notices = {
        name.decode(): decode_notice(name.decode(), stored) for name, stored in db.hgetall(KEYS.notices).items()
    }
    assert {name.decode() for name in db.zrange(KEYS.notices_due, 0, -1)} == set(notices)
    return notices


def letter_of(notice: str, **fields: object) -> DeadLetter:
    """Return the dead letter of a notice."""
    return make_letter(notice, queue=NOTICE_QUEUE, model=None, **fields)


def _take(db: redis.Redis) -> Command:
    store_notice(db, "a")
    db.zadd(KEYS.notices_due, {"gone": 1})
    return take_command(KEYS, limit=10, claim_ms=1000)


def _finish(db: redis.Redis) -> Command:
    notice = store_notice(db, "a")
    store_notice(db, "b")
    return finish_command(KEYS, notice.id, notice.message)


def _postpone(db: redis.Redis) -> Command:
    notice = msgspec.structs.replace(notice_of(db), stored=notice_of(db).message)
    db.hset(KEYS.endpoints, "other", "{}")
    return postpone_command(KEYS, notice, b"more", delay_ms=1000, error=ERROR)


def notice_of(db: redis.Redis, job: str = "a") -> Notice:
    """Store a notice and return it as a notifier claims it."""
    notice = store_notice(db, job)
    return msgspec.structs.replace(notice, stored=notice.message)


def bury(notice: Notice) -> Command:
    """Return the command that makes a dead letter of a notice."""
    return bury_command(
        KEYS, notice.id, notice.stored, letter_of(notice.id), notice.message,
        endpoint="orders", error=ERROR, limits=LIMITS,
    )  # fmt: skip


def _bury(db: redis.Redis) -> Command:
    notice = notice_of(db)
    notice_of(db, "b")
    db.hset(KEYS.endpoints, "other", "{}")
    db.hset(KEYS.dead, "x", "{}")
    db.hset(KEYS.dead_messages, "x", "{}")
    db.zadd(KEYS.dead_times, {"x": 1})
    db.zadd(KEYS.dead_share(NOTICE_QUEUE, malformed=False), {"x": 1})
    db.set(KEYS.dead_dropped, 1)
    return bury(notice)


def sweep(jobs: list[str]) -> Command:
    """Return the command that sweeps these jobs."""
    names = [name for job in jobs for name in (KEYS.result(job), KEYS.job(job))]
    return notice_scripts._SWEEP([*names_of_notices(KEYS), *names])


def _sweep(db: redis.Redis) -> Command:
    for job in "abc":
        open_job(db, job)
    db.mset({KEYS.result(job): b'{"status":"SUCCESS"}' for job in "ab"})
    store_notice(db, "z")
    return sweep(["a", "b"])


def _replay(db: redis.Redis) -> Command:
    replays = []
    store_notice(db, "z")
    for job in "ab":
        letter = msgspec.structs.replace(letter_of(f"{job}.success"), died_ms=1000)
        db.hset(KEYS.dead, letter.id, letter.encode())
        db.hset(KEYS.dead_messages, letter.id, b"{}")
        db.zadd(KEYS.dead_times, {letter.id: 1000, "x": 1})
        db.zadd(KEYS.dead_share(NOTICE_QUEUE, malformed=False), {letter.id: 1000, "x": 1})
        replays.append(PreparedNotice(letter=attach_message(letter, b"{}"), notice=letter.id, stored=b"stored"))
    db.hset(KEYS.dead, "x", "{}")
    db.hset(KEYS.dead_messages, "x", "{}")
    return letters.replay_notices_command(KEYS, replays)


_LETTERS = ("hash", "hash", "zset", "string")
#: By the name of the script: what stores a valid state and returns the command, and the kinds of its keys.
CASES: dict[str, tuple[Callable[[redis.Redis], Command], tuple[str, ...]]] = {
    "take_notices": (_take, ("zset", "hash")),
    "finish_notice": (_finish, ("zset", "hash")),
    "postpone_notice": (_postpone, ("zset", "hash", "hash")),
    "bury_notice": (_bury, ("zset", "hash", "hash", *_LETTERS, "zset")),
    "sweep_notices": (_sweep, ("zset", "hash", "zset", "zset", "zset", *("any",) * 4)),
    "replay_notices": (_replay, ("zset", "hash", "hash", "zset", "hash", "zset")),
}


def _many(db: redis.Redis, size: int) -> Command:
    for number in range(size):
        store_notice(db, str(number))
    return take_command(KEYS, limit=size, claim_ms=1000)


def _long(db: redis.Redis, size: int) -> bytes:
    stored = b"[]," * size * 100
    db.hset(KEYS.notices, "a.success", stored)
    db.zadd(KEYS.notices_due, {"a.success": 1})
    return stored


def _long_notice(db: redis.Redis, size: int) -> Notice:
    return msgspec.structs.replace(store_notice(db, "a", _long(db, size)), stored=_long(db, size))


def _sweep_many(outcome: bytes) -> Callable[[redis.Redis, int], Command]:
    def build(db: redis.Redis, size: int) -> Command:
        jobs = [f"job-{number}" for number in range(size // 10)]
        for job in jobs:
            open_job(db, job, record=encode_record() + b"x" * 100_000)
        db.mset({KEYS.result(job): outcome for job in jobs})
        return sweep(jobs)

    return build


def _replay_many(db: redis.Redis, size: int) -> Command:
    replays = []
    for number in range(size):
        letter = msgspec.structs.replace(letter_of(f"{number}.success"), died_ms=1000)
        db.hset(KEYS.dead, letter.id, letter.encode())
        db.hset(KEYS.dead_messages, letter.id, b"{}")
        db.zadd(KEYS.dead_times, {letter.id: 1000})
        replays.append(PreparedNotice(letter=attach_message(letter, b"{}"), notice=letter.id, stored=b"s" * 600))
    return letters.replay_notices_command(KEYS, replays)


#: Hostile inputs, as `test_cost.COSTS` has them.
COSTS: dict[str, dict[str, Callable[[redis.Redis, int], Command]]] = {
    "take_notices": {"many": _many, "long": lambda db, size: (_long(db, size), _take(db))[1]},
    "finish_notice": {"long": lambda db, size: finish_command(KEYS, "a.success", _long(db, size))},
    "postpone_notice": {
        "long": lambda db, size: postpone_command(
            KEYS, _long_notice(db, size), b"x" * size * 100, delay_ms=1, error=ERROR
        )
    },
    "bury_notice": {"long": lambda db, size: bury(_long_notice(db, size))},
    "sweep_notices": {
        "deep": _sweep_many(b'{"x":' + b"[" * 10_000),
        "stored": _sweep_many(b'{"status":"REVOKED","x":"' + b"x" * 10_000),
    },
    "replay_notices": {"many": _replay_many},
}
