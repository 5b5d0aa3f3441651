"""Dead letters for tests, stored in Redis as a worker's publish script stores them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import redis

from headrace import Client
from headrace.connection.server_time import decode_server_time
from headrace.wire.attempts import Attempt
from headrace.wire.dead_letter import DeadLetter, malformed_letter_id
from headrace.wire.keys import Keys
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure, encode_outcome

INSTANCES = [{"age": 41}]
#: The result of `stored_ids` where there are no dead letters.
NO_IDS: dict[str, Any] = {"dead": set(), "messages": set(), "died": set()}


def ago_ms(seconds: float) -> int:
    """Return a moment in the past as unix milliseconds."""
    return int((time.time() - seconds) * 1000)


def list_ids(client: Client, **conditions: Any) -> list[str]:
    """Return the ids of the letters that match a filter, oldest first."""
    return [letter.id for letter in client.dead_letters.list(**conditions)]


def crashed_attempt(at_ms: int = 1_700_000_000_000, cause: str = "crash") -> Attempt:
    """Return an attempt whose process was lost, or that ended for another cause."""
    return Attempt(cause=cause, owner="host-1", at_ms=at_ms, claim_size=1)


def make_message(name: str, instances: Sequence[Any] = INSTANCES, **options: Any) -> bytes:
    """Return the message of a job as a producer writes it."""
    return encode_message(Job(id=name, **{"model": "churn", "instances": instances, **options}))


def make_letter(name: str = "a", **fields: Any) -> DeadLetter:
    """Return a dead letter with the error of a model, with these fields changed."""
    defaults: dict[str, Any] = {
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
    return DeadLetter(id=name, **{**defaults, **fields})


def store_letter(
    server: redis.Redis,
    letter: DeadLetter,
    payload: bytes | None = None,
    *,
    died_ms: int | None = None,
    with_outcome: bool = True,
    ttl: int = 60,
    keys: Keys | None = None,
) -> str:
    """Store a letter, which died now or at `died_ms`; return its id.

    With `with_outcome`, store its failure as the outcome of the job too.
    """
    keys = keys or Keys()
    moment = died_ms if died_ms is not None else decode_server_time(server.time())
    with server.pipeline() as pipe:
        pipe.hset(keys.dead, letter.id, letter.encode())
        pipe.hset(keys.dead_messages, letter.id, make_message(letter.id) if payload is None else payload)
        pipe.zadd(keys.dead_times, {letter.id: moment})
        pipe.zadd(keys.dead_share(letter.queue, malformed=letter.is_malformed), {letter.id: moment})
        if with_outcome:
            failure = Failure(
                job=letter.id,
                reason=letter.reason,
                error=letter.error,
                module=letter.module,
                message=letter.message,
            )
            pipe.set(keys.result(letter.id), encode_outcome(failure, datetime.now(UTC)), ex=ttl)
        pipe.execute()
    return letter.id


def store_malformed(server: redis.Redis, payload: bytes) -> str:
    """Store the letter of bytes that are not a job; return its id."""
    letter = make_letter(
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
    return store_letter(server, letter, payload, with_outcome=False)


def store_group(server: redis.Redis, count: int, *, died_ms: int, **fields: Any) -> None:
    """Store letters that differ only in a number, one each millisecond."""
    keys = Keys()
    for first in range(0, count, 1000):
        names = range(first, min(first + 1000, count))
        with server.pipeline(transaction=False) as pipe:
            for number in names:
                name = f"group-{number}"
                letter = make_letter(name, message=f"row {number} of {name} cannot be", **fields)
                pipe.hset(keys.dead, name, letter.encode())
                pipe.hset(keys.dead_messages, name, make_message(name))
                pipe.zadd(keys.dead_times, {name: died_ms + number})
            pipe.execute()


def stored_ids(server: redis.Redis) -> dict[str, Any]:
    """Return the ids in each key of dead letters."""
    keys = Keys()
    return {
        "dead": set(server.hkeys(keys.dead)),
        "messages": set(server.hkeys(keys.dead_messages)),
        "died": set(server.zrange(keys.dead_times, 0, -1)),
    }


def decode_parts(raw: bytes) -> dict[str, Any]:
    """Return a message as a dictionary."""
    parts: dict[str, Any] = msgspec.json.decode(raw)
    return parts
