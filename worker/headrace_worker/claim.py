"""A claim's way through a pool process, from the messages as they lay in Redis to one outcome for each job.

    open ─> [admit ─> batches ─> predict] ─> settle ─> deliver ─> tell

Everything of the claim is published in one step with the end of its lease, so either all of it happened or
none; if the lease was lost meanwhile, none does, and the jobs run elsewhere.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import redis

from headrace import outcome as outcomes
from headrace.attempts import TRIED, split
from headrace.envelope import Job, NotAJob, Sealed, unseal
from headrace.errors import HeadraceError, InvalidInput
from headrace.outcome import Failure
from headrace.queues import model_of
from headrace_worker import predict
from headrace_worker.batching import Admitted
from headrace_worker.deliver import deliver
from headrace_worker.failures import failure_of, given_up
from headrace_worker.models.manifest import Limits
from headrace_worker.retry import GiveUp, decide
from headrace_worker.settle import Settler
from headrace_worker.transport.scripts import Claim, Leases

if TYPE_CHECKING:
    from headrace_worker.models.registry import Registry
    from headrace_worker.telemetry.events import Events

log = logging.getLogger("headrace.claims")

#: Told of every error of a model that ended a job.
OnError = Callable[[BaseException, Admitted], None]


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A claim, sorted: what can run, what has ended already, and what goes elsewhere. All with their frames."""

    jobs: list[Job]
    #: The frames of these jobs, in the same order.
    frames: list[bytes]
    #: Jobs that end without running: their arguments are no job's, or they were tried often enough.
    ended: list[tuple[Job, bytes, Failure]]
    #: Messages that are no job at all, and why.
    malformed: list[tuple[bytes, NotAJob]]
    #: The inbox of the client that waits, by job id.
    inboxes: dict[str, str]
    #: Jobs whose time has not come: milliseconds until then.
    early: list[tuple[int, bytes]]


def open_claim(frames: Sequence[bytes], queue: str, now: datetime, limits_of: Callable[[Job], Limits]) -> Opened:
    """Read the messages of a claim. Reads nothing twice and raises nothing.

    `limits_of` is asked for the limits of the model of a job that was tried before.
    """
    opened = Opened(jobs=[], frames=[], ended=[], malformed=[], inboxes={}, early=[])
    for frame in frames:
        attempts, message = split(frame) if frame.startswith(TRIED) else ((), frame)
        try:
            sealed = unseal(message)
        except NotAJob as error:
            opened.malformed.append((frame, error))
            continue
        if sealed.reply_to is not None:
            opened.inboxes[sealed.id] = sealed.reply_to
        try:
            job = sealed.job()
        except InvalidInput as error:
            unreadable = _unreadable(sealed, queue)
            opened.ended.append((unreadable, frame, failure_of(error, unreadable)))
            continue
        if attempts and isinstance(decision := decide(attempts, limits_of(job), 0.0), GiveUp):
            opened.ended.append((job, frame, given_up(job, attempts, decision.reason)))
        elif job.eta is not None and job.eta > now:
            opened.early.append((int((job.eta - now).total_seconds() * 1000) + 1, frame))
        else:
            opened.jobs.append(job)
            opened.frames.append(frame)
    return opened


def _unreadable(sealed: Sealed, queue: str) -> Job:
    # Its arguments may be anything, an instance in place of the model too: only a name that is known is taken.
    model = model_of(queue)
    return Job(id=sealed.id, model=model if model and sealed.args[:1] == [model] else "", instances=[])


class ClaimRunner:
    """Runs claims in one pool process."""

    def __init__(
        self,
        client: redis.Redis,
        leases: Leases,
        registry: Registry,
        *,
        worker: str,
        result_key: Callable[[str], str],
        ttl: int,
        events: Events | None,
        on_error: OnError,
    ) -> None:
        self._client, self._leases, self._registry = client, leases, registry
        self._worker, self._result_key, self._ttl = worker, result_key, ttl
        self._events, self._on_error = events, on_error

    def run(self, claim: Claim) -> None:
        """Run a claim to its end. Raises redis.RedisError when Redis stays away."""
        queue, began = claim.lease.queue, claim.moment(time.monotonic())
        if self._events:
            self._events.claimed(len(claim.frames))
        opened = open_claim(claim.frames, queue, began, self._limits_of)
        if claim.look:
            self._drop_ended(opened)
        if self._events:
            self._events.started(opened.jobs, began)
        results = predict.run(opened.jobs, self._registry, began)
        now = claim.moment(time.monotonic())
        settler = Settler(
            queue=queue,
            owner=claim.lease.owner,
            worker=self._worker,
            now_ms=int(now.timestamp() * 1000),
            chance=random.random,
        )
        for job, frame, failure in opened.ended:
            settler.ended(job, frame, failure)
        for frame, why in opened.malformed:
            settler.malformed(frame, why)
        settler.settled.delayed.extend(opened.early)
        settler.ran(opened.jobs, opened.frames, results)
        settled = settler.settled
        published = deliver(self._leases, claim.lease, settled, now=now, ttl=self._ttl, inboxes=opened.inboxes)
        if published is None:
            log.warning("the lease of %d jobs of %s was lost; they run elsewhere", len(opened.jobs), queue)
            return
        if opened.malformed:
            log.error("%d messages of %s are no jobs; they are dead letters now", len(opened.malformed), queue)
        for error, admitted in settled.errors:
            self._on_error(error, admitted)
        if settled.retried:
            errors = sorted({type(error).__name__ for _, error in settled.retried})
            log.warning("%d jobs of %s run again, after %s", len(settled.retried), queue, ", ".join(errors))
        if self._events:
            seconds = (now - began).total_seconds()
            self._events.ended(list(settled.outcomes.values()), published, now, seconds)
            if settled.retried:
                self._events.retried([failure_of(error, job) for job, error in settled.retried], now)

    def _limits_of(self, job: Job) -> Limits:
        """The limits of a job's model as the store has them: to load the model may be what takes the process."""
        store = self._registry.store
        try:
            return store.read(job.model, job.version or store.latest(job.model)).limits
        except (HeadraceError, OSError):
            return Limits()

    def _drop_ended(self, opened: Opened) -> None:
        """Leave out the jobs that have an outcome: one that was cancelled while it waited is not run."""
        if not opened.jobs:
            return
        stored: list[bytes | None] = self._client.mget([self._result_key(job.id) for job in opened.jobs])  # type: ignore[assignment]  # bytes
        waiting = [place for place, raw in enumerate(stored) if raw is None or not _is_outcome(raw)]
        opened.jobs[:] = [opened.jobs[place] for place in waiting]
        opened.frames[:] = [opened.frames[place] for place in waiting]


def _is_outcome(raw: bytes) -> bool:
    try:
        return outcomes.decode(raw) is not None
    except (msgspec.DecodeError, RecursionError):
        return False  # something else lies there: whether it may be overwritten is the script's to say
