"""A claim's way through a pool process, from the messages as they lay in Redis to one outcome for each job.

    open ─> [admit ─> batches ─> predict] ─> deliver ─> tell

Everything of the claim is published in one step with the end of its lease, so either all of it happened or
none; if the lease was lost meanwhile, none does, and the jobs run elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import redis

from headrace import outcome as outcomes
from headrace.envelope import Job, NotAJob, Sealed, unseal
from headrace.errors import InvalidInput
from headrace.outcome import Failure, Outcome
from headrace_worker import predict
from headrace_worker.deliver import deliver
from headrace_worker.failures import failure_of
from headrace_worker.transport.scripts import TRIED, Claim, Leases

if TYPE_CHECKING:
    from headrace_worker.models.registry import Registry
    from headrace_worker.predict import OnError
    from headrace_worker.telemetry.events import Events

log = logging.getLogger("headrace.claims")

#: Runs that may end with the loss of the process before a job is given up.
MOST_ATTEMPTS = 3


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A claim, sorted: what can run, what has ended already, and what goes elsewhere."""

    jobs: list[Job]
    #: Jobs that end without running: their arguments are no job's, or they were tried often enough.
    ended: list[Outcome]
    #: Messages that are no job at all.
    malformed: list[bytes]
    #: The inbox of the client that waits, by job id.
    inboxes: dict[str, str]
    #: Jobs whose time has not come: unix milliseconds, and the frame.
    early: list[tuple[int, bytes]]


def open_claim(frames: Sequence[bytes], now: datetime) -> Opened:
    """Read the messages of a claim. Reads nothing twice and raises nothing."""
    opened = Opened(jobs=[], ended=[], malformed=[], inboxes={}, early=[])
    for frame in frames:
        attempts, message = _attempts(frame)
        try:
            sealed = unseal(message)
        except NotAJob:
            opened.malformed.append(frame)
            continue
        if sealed.reply_to is not None:
            opened.inboxes[sealed.id] = sealed.reply_to
        try:
            job = sealed.job()
        except InvalidInput as error:
            opened.ended.append(failure_of(error, _unreadable(sealed)))
            continue
        if len(attempts) >= MOST_ATTEMPTS:
            opened.ended.append(_given_up(job, attempts))
        elif job.eta is not None and job.eta > now:
            opened.early.append((int(job.eta.timestamp() * 1000), frame))
        else:
            opened.jobs.append(job)
    return opened


def _attempts(frame: bytes) -> tuple[list[str], bytes]:
    """The attempts a frame tells of (`cause,owner,milliseconds`), and its message."""
    if not frame.startswith(TRIED):
        return [], frame
    tried, newline, message = frame[1:].partition(b"\n")
    if not newline:
        return [], frame
    return [attempt for attempt in tried.decode(errors="replace").split(";") if attempt], message


def _unreadable(sealed: Sealed) -> Job:
    return Job(id=sealed.id, model="", instances=[])


def _given_up(job: Job, attempts: Sequence[str]) -> Failure:
    causes = ", ".join(attempt.partition(",")[0] for attempt in attempts)
    return Failure(
        job=job.id,
        reason="crash",
        error="WorkerLostError",
        module="billiard.exceptions",
        message=f"the process that ran the job was lost each time, {len(attempts)} times ({causes})",
    )


class ClaimRunner:
    """Runs claims in one pool process."""

    def __init__(
        self,
        client: redis.Redis,
        leases: Leases,
        registry: Registry,
        *,
        result_key: Callable[[str], str],
        ttl: int,
        events: Events | None,
        on_error: OnError,
    ) -> None:
        self._client, self._leases, self._registry = client, leases, registry
        self._result_key, self._ttl = result_key, ttl
        self._events, self._on_error = events, on_error

    def run(self, claim: Claim) -> None:
        """Run a claim to its end. Raises redis.RedisError when Redis stays away."""
        began = datetime.now(UTC)
        if self._events:
            self._events.claimed(len(claim.frames))
        opened = open_claim(claim.frames, began)
        jobs = self._without_ended(opened.jobs) if claim.look else opened.jobs
        if self._events:
            self._events.started(jobs, began)
        ended = [*opened.ended, *predict.run(jobs, self._registry, began, self._on_error)]
        now = datetime.now(UTC)
        published = deliver(
            self._leases,
            claim.lease,
            ended,
            now=now,
            ttl=self._ttl,
            inboxes=opened.inboxes,
            malformed=opened.malformed,
            early=opened.early,
        )
        if published is None:
            log.warning("the lease of %d jobs of %s was lost; they run elsewhere", len(jobs), claim.lease.queue)
            return
        if opened.malformed:
            log.error("%d messages of %s are no jobs; kept aside", len(opened.malformed), claim.lease.queue)
        if self._events:
            self._events.ended(ended, published, now, (now - began).total_seconds())

    def _without_ended(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that have no outcome yet: one that was cancelled while it waited is not run."""
        if not jobs:
            return []
        stored: list[bytes | None] = self._client.mget([self._result_key(job.id) for job in jobs])  # type: ignore[assignment]  # bytes
        return [job for job, raw in zip(jobs, stored, strict=True) if raw is None or not _is_outcome(raw)]


def _is_outcome(raw: bytes) -> bool:
    try:
        return outcomes.decode(raw) is not None
    except (msgspec.DecodeError, RecursionError):
        return False  # something else lies there: whether it may be overwritten is the script's to say
