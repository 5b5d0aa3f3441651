"""A claim's way through a pool process, from the messages as they lay in Redis to one outcome for each job.

    open ─> [admit ─> batches ─> predict] ─> settle ─> deliver ─> report

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

from headrace.errors import HeadraceError
from headrace.wire.message import Job
from headrace.wire.outcome import Outcome, decode_outcome
from headrace.wire.signing import Trust
from headrace_worker.execution import predict
from headrace_worker.execution.batching import NotRunnableHere
from headrace_worker.execution.opening import ParsedClaim, open_claim
from headrace_worker.execution.publish import publish_outcomes
from headrace_worker.execution.records import executions
from headrace_worker.execution.report import ClaimReport, Listener, ProgressListener
from headrace_worker.execution.settle import ClaimDecisions, OutcomeDecider
from headrace_worker.manifest import Limits
from headrace_worker.transport.leases import Claim, Leases

if TYPE_CHECKING:
    from headrace_worker.models.registry import Registry

log = logging.getLogger("headrace.claims")


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
        events: ProgressListener | None,
        trust: Trust | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._client, self._leases, self._registry = client, leases, registry
        self._worker, self._result_key, self._ttl = worker, result_key, ttl
        self._events, self._trust = events, trust
        self._listeners = [events, *listeners] if events else listeners

    def run(self, claim: Claim) -> None:
        """Run a claim to its end. Raises redis.RedisError when Redis stays away."""
        began = time.monotonic()
        now = claim.moment(began)
        if self._events:
            self._events.on_claim_received(len(claim.frames))
        opened = open_claim(claim.frames, claim.lease.queue, now, self._limits_of, self._trust)
        if claim.check_outcomes:
            self._drop_ended(opened)
        if self._events:
            self._events.on_jobs_started(opened.jobs, now, opened.frames)
        results, batches = predict.run(opened.jobs, self._registry, now)
        predicted = time.monotonic()
        now = claim.moment(predicted)
        settled = self._settle(claim, opened, results, now)
        published = publish_outcomes(
            self._leases,
            claim.lease,
            settled,
            now=now,
            ttl=self._ttl,
            inboxes=opened.reply_channels,
            runs=executions(claim, opened, batches),
            worker=self._worker,
        )
        self._tell(
            ClaimReport(
                claim=claim,
                worker=self._worker,
                opened=opened,
                batches=batches,
                settled=settled,
                published=published,
                started_at=began,
                predicted_at=predicted,
                published_at=time.monotonic(),
            )
        )

    def _settle(
        self,
        claim: Claim,
        opened: ParsedClaim,
        results: Sequence[Outcome | predict.FailedRun | NotRunnableHere],
        now: datetime,
    ) -> ClaimDecisions:
        settler = OutcomeDecider(
            queue=claim.lease.queue,
            owner=claim.lease.owner,
            worker=self._worker,
            now_ms=int(now.timestamp() * 1000),
            chance=random.random,
        )
        for job, frame, failure in opened.finished:
            settler.add_finished(job, frame, failure)
        for frame, why in opened.malformed:
            settler.add_malformed(frame, why)
        settler.decisions.delayed.extend(opened.not_due)
        settler.add_results(opened.jobs, opened.frames, results)
        return settler.decisions

    def _tell(self, report: ClaimReport) -> None:
        for listener in self._listeners:
            try:
                listener.on_claim_finished(report)
            except Exception as error:  # noqa: BLE001  # the jobs have their outcomes, whatever their news comes to
                # Its message may quote a payload.
                log.error("%s failed: %s", type(listener).__qualname__, type(error).__qualname__)  # noqa: TRY400

    def _limits_of(self, job: Job) -> Limits:
        """The limits of a job's model as the store has them: to load the model may be what takes the process."""
        store = self._registry.store
        try:
            return store.read_manifest(job.model, job.version or store.latest(job.model)).limits
        except (HeadraceError, OSError):
            return Limits()

    def _drop_ended(self, opened: ParsedClaim) -> None:
        """Leave out the jobs that have an outcome: one that was cancelled while it waited is not run."""
        if not opened.jobs:
            return
        stored: list[bytes | None] = self._client.mget([self._result_key(job.id) for job in opened.jobs])  # type: ignore[assignment]  # bytes
        waiting = [place for place, raw in enumerate(stored) if raw is None or not _is_outcome(raw)]
        opened.jobs[:] = [opened.jobs[place] for place in waiting]
        opened.frames[:] = [opened.frames[place] for place in waiting]


def _is_outcome(raw: bytes) -> bool:
    try:
        return decode_outcome(raw) is not None
    except (msgspec.DecodeError, RecursionError):
        return False  # something else lies there: whether it may be overwritten is the script's to say
