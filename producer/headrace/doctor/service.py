"""Whether somebody serves what waits: what queues, workers and aliases say of each other.

`look` reads, `service` judges: a pure function.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from redis.exceptions import ResponseError

from headrace.catalog import aliases, published
from headrace.catalog import workers as loaded
from headrace.catalog.aliases import Aliases
from headrace.catalog.workers import LoadError, WorkerStatus
from headrace.connection.commands import Command, Operation
from headrace.doctor.redis import Finding
from headrace.inspection import queues
from headrace.inspection.queues import QueueDepth
from headrace.text import format_duration
from headrace.wire.keys import Keys

#: Milliseconds after which a lapsed lease should have been swept: any worker does so each second.
_SWEPT = 10_000


#: Of a user who may not look.
UNSEEN = Finding(
    level="unknown",
    directive="queues and workers",
    actual="not permitted to this user",
    expected="permitted, or checked by another user",
    why="whether every queue has a worker cannot be told",
    fix="ask as the operator of docs/reference/acl.md, with --url",
)


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one model."""

    queue: QueueDepth
    aliases: Aliases
    #: By worker, and by version.
    loaded: Mapping[str, WorkerStatus]
    refused: Mapping[str, LoadError]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of all of them at one moment, the server's unix milliseconds."""

    now_ms: int
    models: tuple[Model, ...]
    #: When each lease lapses.
    lapses_ms: tuple[int, ...]


def look(keys: Keys) -> Operation[Service | None]:
    """What there is to see; None where this user may not."""
    try:
        return (yield from _look(keys))
    except ResponseError:
        return None


def _look(keys: Keys) -> Operation[Service]:
    at_seconds, micros = yield Command(("TIME",))
    now_ms = int(at_seconds) * 1000 + int(micros) // 1000
    names = published.listed((yield published.every(keys)))
    leases = yield from queues.read_leases(keys)
    models = []
    if names:
        measured = yield queues.lengths(keys, names)
        for queue in queues.depths(names, measured, leases):
            known = aliases.decoded(queue.model, (yield aliases.read_command(keys, queue.model)))
            has = loaded.loaded((yield loaded.read_loaded(keys, queue.model)), now_ms)
            not_served = loaded.refused((yield loaded.read_refused(keys, queue.model)), now_ms)
            models.append(Model(queue=queue, aliases=known, loaded=has, refused=not_served))
    lapses = tuple(int(at) for _, at in leases)
    return Service(now_ms=now_ms, models=tuple(models), lapses_ms=lapses)


def service(seen: Service) -> Iterator[Finding]:
    """What stands against jobs being served."""
    for model in seen.models:
        yield from _workers(model)
        yield from _versions(model)
    late = [seen.now_ms - at for at in seen.lapses_ms if seen.now_ms - at > _SWEPT]
    if late:
        yield Finding(
            level="breaks",
            directive="headrace:leases",
            actual=f"{len(late)} lapsed, the first {format_duration(max(late))} ago",
            expected="none",
            why="jobs that were lost with their worker wait for any worker to bring them back",
            fix="start a worker; if one runs, its log says what keeps it",
        )


def _workers(model: Model) -> Iterator[Finding]:
    if model.loaded:
        return
    queue = model.queue
    jobs = queue.waiting + queue.delayed
    yield Finding(
        level="breaks" if jobs else "weakens",
        directive=queue.queue,
        actual=f"served by no worker, with {jobs:,} job{'' if jobs == 1 else 's'} in it",
        expected="a worker",
        why="its jobs wait until there is one",
        fix="headrace worker; if one runs, its log says why it does not serve the model",
    )


def _versions(model: Model) -> Iterator[Finding]:
    name = model.queue.model
    for version, said in model.refused.items():
        yield Finding(
            level="weakens",
            directive=f"{name}@{version}",
            actual=f"refused by {said.worker}: {said.reason}",
            expected="loaded",
            why="it does not serve, whatever points to it",
            fix=f"mend and add it anew, or headrace models rollback {name}",
        )
    there = {version for said in model.loaded.values() for version in said.versions}
    for alias, points in model.aliases.by_name.items():
        if model.loaded and points.version not in there and points.version not in model.refused:
            yield Finding(
                level="breaks",
                directive=f"{name}@{alias}",
                actual=f"version {points.version}, which no worker has",
                expected=f"one of {', '.join(sorted(there, key=int)) or 'none'}",
                why="jobs that name it, or no version, wait or fail",
                fix=f"look at the log of a worker; headrace models rollback {name} brings the former one back",
            )
