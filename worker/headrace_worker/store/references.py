"""Find the versions of a model that Redis refers to: by aliases, by jobs in flight, and by dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
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
from headrace.wire.attempts import decode_delayed, decode_queued_message
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace.wire.parsing import MalformedMessage, parse
from headrace.wire.queues import queue_names
from headrace.wire.stored import show
from headrace_worker.transport.claims import parse_lease

#: The largest number of messages in one reply, and the bytes of a reply beyond which the next asks for fewer.
_PAGE_MESSAGES, _PAGE_BYTES = 1000, 1024 * 1024


def find_versions_in_use(client: redis.Redis, keys: Keys, model: str) -> dict[str, str]:
    """Return the newest published version, and those that an alias or a job in flight names, each with a reason.

    Raises redis.RedisError, and ModelError if an alias cannot be read, because its version would be missing.
    """
    versions = _find_by_jobs(client, keys, model)
    latest: bytes | None = client.hget(keys.contracts(model), "latest")  # type: ignore[assignment]  # bytes
    if latest:
        versions[show(latest)] = "the newest published version"
    return versions | _find_by_aliases(client, keys, model)


def find_versions_of_dead_letters(dead_letters: Iterable[DeadLetter]) -> dict[str, str]:
    """Return the versions that dead letters ran on or asked for, because a replay may ask for them again."""
    return {letter.version: f"the dead letter {letter.id}" for letter in dead_letters if letter.version}


def _find_by_aliases(client: redis.Redis, keys: Keys, model: str) -> dict[str, str]:
    reply = execute(client, read_aliases(keys, model))
    current = decode_aliases(model, reply).by_name
    if len(current) < len(reply):
        raise ModelError(f"an alias of {model} cannot be read: a newer Headrace may have set it; upgrade this one")
    moves = decode_history(model, execute(client, read_history(keys, model)))
    former = {name: find_former_version(moves, name) for name in current}
    return {
        **{version: f"the rollback target of {name}" for name, version in former.items() if version},
        **{alias.version: f"the alias {name}" for name, alias in current.items()},
    }


def _find_by_jobs(client: redis.Redis, keys: Keys, model: str) -> dict[str, str]:
    versions: dict[str, str] = {}
    # A job may move from a lease back to its queue while both are read. The second pass sees it.
    for _ in range(2):
        for queued_message in chain(*(_iter_messages(client, keys, queue) for queue in queue_names(model))):
            if version := _version_of(queued_message):
                versions[version] = "a job"
    return versions


def _version_of(queued_message: bytes) -> str | None:
    try:
        return parse(decode_queued_message(queued_message)[1]).to_job().version
    except (MalformedMessage, InvalidInput):
        return None  # it will become a dead letter, and does not run


def _iter_messages(client: redis.Redis, keys: Keys, queue: str) -> Iterator[bytes]:
    """Yield every queued message of a queue in the order in which a job moves: waiting, delayed, leased."""
    for key in (*(name for name, _ in keys.foreign_lists(queue)), *keys.sources(queue)):
        yield from _iter_pages(client.lrange, key)
    yield from (decode_delayed(member)[1] for member in _iter_pages(client.zrange, keys.delayed(queue)))
    members: list[bytes] = client.zrange(keys.leases, 0, -1)  # type: ignore[assignment]  # bytes
    for member in members:
        lease = parse_lease(member)
        if lease is not None and lease.queue == queue:
            yield from _iter_pages(client.lrange, keys.lease(lease.name))


def _iter_pages(read: Any, key: str) -> Iterator[bytes]:
    # New messages are pushed on the left, so a message may be read twice, but none is skipped.
    start, count = 0, 1
    while page := read(key, start, start + count - 1):
        yield from page
        start += len(page)
        count = min(_PAGE_MESSAGES, 2 * count) if sum(map(len, page)) < _PAGE_BYTES else max(1, count // 2)
