"""Dead letters for tests, put into Redis as a worker's publish script puts them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import redis

from headrace.connection.server_time import decode_server_time
from headrace.wire.attempts import Attempt
from headrace.wire.dead_letter import DeadLetter, malformed_letter_id
from headrace.wire.keys import Keys
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure, encode_outcome

INSTANCES = [{"age": 41}]


def crashed_attempt(at_ms: int = 1_700_000_000_000, cause: str = "crash") -> Attempt:
    """A run that took its process with it."""
    return Attempt(cause=cause, owner="host-1", at_ms=at_ms, claim_size=1)


def make_message(name: str, instances: Sequence[Any] = INSTANCES, **options: Any) -> bytes:
    """The message of a job as a producer writes it."""
    return encode_message(Job(id=name, **{"model": "churn", "instances": instances, **options}))


def make_letter(name: str = "a", **fields: Any) -> DeadLetter:
    """A letter of a model's own error, but for the fields given."""
    usual: dict[str, Any] = {
        "model": "churn",
        "version": "3",
        "queue": "predict.churn",
        "reason": "permanent",
        "error": "ValueError",
        "module": "builtins",
        "message": "the model cannot",
        "traceback": "Traceback (most recent call last):\n  File model.py, line 7\nValueError\n",
        "instances": 1,
        "worker": "host-1",
    }
    return DeadLetter(id=name, **{**usual, **fields})


def store_letter(
    server: redis.Redis,
    dead: DeadLetter,
    payload: bytes | None = None,
    *,
    died_ms: int | None = None,
    ended: bool = True,
    ttl: int = 60,
    keys: Keys | None = None,
) -> str:
    """Put a letter into Redis, died now unless said otherwise, and its failure as the job's outcome; its id."""
    keys = keys or Keys()
    moment = died_ms if died_ms is not None else decode_server_time(server.time())
    with server.pipeline() as pipe:
        pipe.hset(keys.dead, dead.id, dead.encode())
        pipe.hset(keys.dead_messages, dead.id, make_message(dead.id) if payload is None else payload)
        pipe.zadd(keys.dead_times, {dead.id: moment})
        if ended:
            failure = Failure(
                job=dead.id, reason=dead.reason, error=dead.error, module=dead.module, message=dead.message
            )
            pipe.set(keys.result(dead.id), encode_outcome(failure, datetime.now(UTC)), ex=ttl)
        pipe.execute()
    return dead.id


def store_malformed(server: redis.Redis, payload: bytes) -> str:
    """Put the letter of bytes that are no job into Redis; its id."""
    dead = make_letter(
        malformed_letter_id(payload),
        model=None,
        version=None,
        reason="malformed",
        error="MalformedMessage",
        module="headrace.wire.message",
        message="not a Celery message in JSON",
        traceback=None,
        instances=None,
    )
    return store_letter(server, dead, payload, ended=False)


def store_group(server: redis.Redis, count: int, *, died_ms: int, **fields: Any) -> None:
    """Many letters alike but for a number, one each millisecond."""
    keys = Keys()
    for first in range(0, count, 1000):
        names = range(first, min(first + 1000, count))
        with server.pipeline(transaction=False) as pipe:
            for number in names:
                name = f"storm-{number}"
                dead = make_letter(name, message=f"row {number} of {name} cannot be", **fields)
                pipe.hset(keys.dead, name, dead.encode())
                pipe.hset(keys.dead_messages, name, make_message(name))
                pipe.zadd(keys.dead_times, {name: died_ms + number})
            pipe.execute()


def stored_ids(server: redis.Redis) -> dict[str, Any]:
    """What is left of letters in Redis."""
    keys = Keys()
    return {
        "dead": set(server.hkeys(keys.dead)),
        "messages": set(server.hkeys(keys.dead_messages)),
        "died": set(server.zrange(keys.dead_times, 0, -1)),
    }


def decode_parts(raw: bytes) -> dict[str, Any]:
    """A message as a dictionary."""
    found: dict[str, Any] = msgspec.json.decode(raw)
    return found
