"""Which versions of a model somebody needs, as Redis has it: aliases, jobs in flight, dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import redis

from headrace.catalog.aliases import (
    decode_aliases,
    decode_history,
    find_former_version,
    read_aliases,
    read_history,
)
from headrace.connection.commands import execute
from headrace.errors import InvalidInput, ModelError
from headrace.wire.attempts import decode_queued_message
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys, queue_name
from headrace.wire.parsing import MalformedMessage, parse
from headrace_worker.transport.leases import LeaseKeys, lease_of

#: Messages read at once, at the most; and bytes of them beyond which fewer are.
_MOST, _BYTES = 1000, 1024 * 1024


def named(client: redis.Redis, keys: Keys, model: str) -> dict[str, str]:
    """The versions that an alias or a job in flight names, or that run jobs which name none; and what names them.

    Raises redis.RedisError, and ModelError where an alias cannot be read: then nothing is known.
    """
    found = _by_jobs(client, keys, model)
    latest: bytes | None = client.hget(keys.contracts(model), "latest")  # type: ignore[assignment]  # bytes
    if latest:
        found[latest.decode()] = "serves"
    return found | _by_aliases(client, keys, model)


def _by_aliases(client: redis.Redis, keys: Keys, model: str) -> dict[str, str]:
    reply = execute(client, read_aliases(keys, model))
    now = decode_aliases(model, reply).by_name
    if len(now) < len(reply):
        raise ModelError(f"an alias of {model} cannot be read: a newer Headrace may have set it; upgrade this one")
    moves = decode_history(execute(client, read_history(keys, model)))
    former = {name: find_former_version(moves, name) for name in now}
    return {
        **{version: f"a rollback of {name} goes to it" for name, version in former.items() if version},
        **{alias.version: f"the alias {name}" for name, alias in now.items()},
    }


def _by_jobs(client: redis.Redis, keys: Keys, model: str) -> dict[str, str]:
    found: dict[str, str] = {}
    # A job that moves against the walk, from a lease to its queue, is met the second time.
    for _ in range(2):
        for frame in _frames(client, keys, queue_name(model)):
            if version := _version(frame):
                found[version] = "a job"
    return found


def by_letters(letters: Iterable[DeadLetter]) -> dict[str, str]:
    """Return the versions that dead letters ran on or asked for: a replay may ask for them again."""
    return {letter.version: f"the dead letter {letter.id}" for letter in letters if letter.version}


def _version(frame: bytes) -> str | None:
    try:
        return parse(decode_queued_message(frame)[1]).to_job().version
    except (MalformedMessage, InvalidInput):
        return None  # it will be a dead letter, and nobody's job


def _frames(client: redis.Redis, keys: Keys, queue: str) -> Iterator[bytes]:
    """Every message of a queue, in the order of a job's way: waiting, to run again or later, and leased."""
    for name in (*keys.lists(queue), keys.isolated(queue)):
        yield from _pages(client.lrange, name)
    yield from _pages(client.zrange, keys.delayed(queue))
    members: list[bytes] = client.zrange(keys.leases, 0, -1)  # type: ignore[assignment]  # bytes
    for member in members:
        lease = lease_of(member)
        if lease is not None and lease.queue == queue:
            yield from _pages(client.lrange, LeaseKeys(keys).lease(lease.name))


def _pages(read: Any, name: str) -> Iterator[bytes]:
    # What is pushed meanwhile comes in at the left, and what was read is only met again.
    start, many = 0, 1
    while frames := read(name, start, start + many - 1):
        yield from frames
        start += len(frames)
        many = min(_MOST, 2 * many) if sum(map(len, frames)) < _BYTES else max(1, many // 2)
