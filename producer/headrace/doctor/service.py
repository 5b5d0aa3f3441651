"""Checks that every queue has a worker, every alias a loaded version, no lease stays expired, and runs go on.

`read_service` reads the state from Redis; `check_service` is a pure function of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from redis.exceptions import ResponseError

from headrace.catalog.aliases import Aliases, decode_aliases, read_aliases
from headrace.catalog.published import list_models
from headrace.catalog.workers import (
    LoadError,
    WorkerStatus,
    decode_loaded,
    decode_refused,
    read_loaded,
    read_refused,
)
from headrace.connection.commands import Operation
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.doctor.finding import Finding
from headrace.doctor.runs import check_runs, read_open_runs
from headrace.inspection import queues
from headrace.inspection.lost import LostSample, sample_lost
from headrace.inspection.notices import NoticeState, read_notices
from headrace.inspection.queues import QueueDepth
from headrace.inspection.unread_lists import UnreadList, find_unread_lists
from headrace.text import format_duration, plural
from headrace.wire.bulk import RunProgress
from headrace.wire.keys import Keys

#: Milliseconds within which an expired lease is removed while any worker runs: workers look every second.
_CLEANUP_MS = 10_000

#: The finding for a user who may not read queues and workers.
NOT_PERMITTED = Finding(
    severity="unknown",
    subject="reading queues and workers",
    actual="not permitted to this user",
    expected="permitted, or checked by another user",
    reason="it cannot be checked whether every queue has a worker",
    fix="name the user `operator` of docs/reference/acl.md in --url",
)


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model's queue, aliases and workers."""

    queue: QueueDepth
    #: The queue of its bulk runs; None if it was not measured.
    bulk_queue: QueueDepth | None = None
    aliases: Aliases
    #: The status of each worker that serves the model, by the worker's name.
    loaded: Mapping[str, WorkerStatus]
    #: The error of each version that a worker could not load, by version.
    refused: Mapping[str, LoadError]


class ServiceState(msgspec.Struct, frozen=True, kw_only=True):
    """All models and leases at one moment."""

    #: The server's unix milliseconds.
    now_ms: int
    models: tuple[ServedModel, ...]
    #: The moment each lease expires, the server's unix milliseconds.
    lease_expiries_ms: tuple[int, ...]
    #: The lists with jobs that no worker reads; None where this user may not look for them.
    unread_lists: tuple[UnreadList, ...] | None = ()
    #: The lost jobs among some of the records; None where this user may not look for them.
    lost: LostSample | None = None
    #: The bulk runs that have not ended.
    runs: tuple[RunProgress, ...] = ()
    #: None where this user may not read them.
    notices: NoticeState | None = None


def read_service(keys: Keys) -> Operation[ServiceState | None]:
    """Read the state of all models and leases. Returns None where this user may not read it."""
    try:
        return (yield from _read_service(keys))
    except ResponseError:
        return None


def _read_service(keys: Keys) -> Operation[ServiceState]:
    now_ms = decode_server_time((yield READ_SERVER_TIME))
    names = yield from list_models(keys)
    leases = yield from queues.read_leases(keys)
    models = []
    depths = yield from queues.measure_queues(keys, queues.queues_of(names))
    for depth, bulk_depth in zip(depths[::2], depths[1::2], strict=True):
        model = depth.model
        model_aliases = decode_aliases(model, (yield read_aliases(keys, model)))
        loaded = decode_loaded(model, (yield read_loaded(keys, model)), now_ms)
        refused = decode_refused(model, (yield read_refused(keys, model)), now_ms)
        models.append(
            ServedModel(queue=depth, bulk_queue=bulk_depth, aliases=model_aliases, loaded=loaded, refused=refused)
        )
    expiries = tuple(int(expires_ms) for _, expires_ms in leases)
    unread = yield from find_unread_lists(keys)
    return ServiceState(
        now_ms=now_ms,
        models=tuple(models),
        lease_expiries_ms=expiries,
        unread_lists=None if unread is None else tuple(unread),
        lost=(yield from sample_lost(keys)),
        runs=(yield from read_open_runs(keys)),
        notices=(yield from read_notices(keys, now_ms)),
    )


def check_service(state: ServiceState) -> Iterator[Finding]:
    """Yield the findings about queues, versions and leases."""
    for model in state.models:
        yield from _check_workers(model)
        yield from _check_pause(model.queue)
        yield from _check_versions(model)
    overdue_ms = [state.now_ms - expiry for expiry in state.lease_expiries_ms]
    overdue_ms = [overdue for overdue in overdue_ms if overdue > _CLEANUP_MS]
    if overdue_ms:
        yield Finding(
            severity="error",
            subject="headrace:leases",
            actual=f"holding {plural(len(overdue_ms), 'expired lease')}, the first for "
            f"{format_duration(max(overdue_ms))}",
            expected="without expired leases",
            reason="jobs of lost workers return to their queues only while a worker runs",
            fix="start a worker; if one runs, its log says why it does not return them",
        )
    yield from _check_unread_lists(state.unread_lists)
    yield from _check_lost(state.lost)
    # Of a model without workers, the queue is a finding already.
    served = {model.queue.model: model.bulk_queue for model in state.models if model.loaded}
    bulk_queues = {model: queue for model, queue in served.items() if queue is not None}
    yield from check_runs(state.runs, bulk_queues, state.now_ms)
    yield from _check_notices(state.notices)


def _check_notices(notices: NoticeState | None) -> Iterator[Finding]:
    if notices is not None and notices.late:
        yield Finding(
            severity="error",
            subject="notices",
            actual=f"{plural(notices.late, 'notice')} due for more than a minute",
            expected="delivered, or tried again later",
            reason="no notifier delivers them, or too few do: receivers are not told how jobs ended",
            fix="start `headrace notify`; if it runs, its log says why it does not deliver, and two deliver more",
        )


def _check_lost(sample: LostSample | None) -> Iterator[Finding]:
    if sample is not None and sample.lost:
        jobs = plural(len(sample.lost), "lost job")
        yield Finding(
            severity="error",
            subject="records of jobs",
            actual=f"holding {jobs} among {sample.records:,}, such as {sample.lost[0]}",
            expected="jobs in a queue, under a lease, or with an outcome",
            reason="their lists were deleted, perhaps by `celery purge`, and nobody runs them",
            fix="submit them again, each under its id; empty a queue with headrace queues purge",
        )


def _check_unread_lists(unread_lists: Sequence[UnreadList] | None) -> Iterator[Finding]:
    if unread_lists is None:
        yield Finding(
            severity="unknown",
            subject="lists that no worker reads",
            actual="not permitted to this user",
            expected="permitted, or checked by another user",
            reason="jobs that were sent to a queue with a slip in its name wait there without end",
            fix="ACL SETUSER <user> +scan",
        )
    for unread in unread_lists or ():
        target = unread.nearest or "predict.MODEL"
        move = f"LMOVE {unread.name!r} {target} RIGHT LEFT"
        yield Finding(
            severity="error",
            subject=unread.name,
            actual=f"a list that no worker reads, with {plural(unread.messages, 'message')}",
            expected=f"jobs in {target}",
            reason="its jobs wait without end",
            fix=f"send jobs with queue={target!r}; move each of these with {move}",
        )


def _check_workers(model: ServedModel) -> Iterator[Finding]:
    if model.loaded:
        return
    for queue in (model.queue, model.bulk_queue):
        if queue is None or (queue.is_bulk and not queue.holds_jobs):
            continue
        jobs = queue.waiting + queue.due + queue.delayed
        yield Finding(
            severity="error" if jobs else "warning",
            subject=queue.queue,
            actual=f"served by no worker, with {plural(jobs, 'job')} in it",
            expected="served by a worker",
            reason="its jobs wait until a worker serves the model",
            fix="start `headrace worker`; if one runs, its log says why it does not serve the model",
        )


def _check_pause(queue: QueueDepth) -> Iterator[Finding]:
    if queue.paused is not None:
        yield Finding(
            severity="warning",
            subject=queue.queue,
            actual=str(queue.paused),
            expected="not paused",
            reason=f"its jobs wait, {queue.waiting + queue.due + queue.delayed} by now, until it is resumed",
            fix=f"headrace queues resume {queue.model}",
        )


def _check_versions(model: ServedModel) -> Iterator[Finding]:
    name = model.queue.model
    for version, error in model.refused.items():
        yield Finding(
            severity="warning",
            subject=f"{name}@{version}",
            actual=f"refused by {error.worker}: {error.reason}",
            expected="loaded",
            reason="no job runs on it, not even through an alias",
            fix=f"correct the model and add it as a new version, or headrace models rollback {name}",
        )
    loaded = {version for status in model.loaded.values() for version in status.versions}
    for alias, target in model.aliases.by_name.items():
        if model.loaded and target.version not in loaded and target.version not in model.refused:
            yield Finding(
                severity="error",
                subject=f"{name}@{alias}",
                actual=f"version {target.version}, which no worker has loaded",
                expected=f"one of {', '.join(sorted(loaded, key=int)) or 'no versions'}",
                reason="jobs that name the alias, or no version, wait or fail",
                fix=f"read the log of a worker; headrace models rollback {name} restores the previous version",
            )
