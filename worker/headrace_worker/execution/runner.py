"""Run a claim in a pool process, from its messages to one outcome for each job.

    open ─> [admit ─> batches ─> predict] ─> settle ─> publish ─> follow-ups ─> report

All decisions for a claim are published in one step, together with the end of its lease, so either all take effect
or none. If the lease has expired meanwhile, none does, and the jobs run on another worker.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import redis

from headrace.catalog.aliases import is_version
from headrace.connection.commands import execute, run
from headrace.errors import HeadraceError
from headrace.results.cancellation import carry_out_requests
from headrace.wire.keys import Keys
from headrace.wire.limits import JobLimits
from headrace.wire.outcome import Cancelled, Outcome, decode_outcome
from headrace.wire.queues import is_bulk_queue
from headrace.wire.signing import Trust
from headrace.wire.stored import DECODE_ERRORS
from headrace_worker.execution import predict
from headrace_worker.execution.bulk_claim import BulkJobs
from headrace_worker.execution.claimed_job import ClaimedJob, JobResult
from headrace_worker.execution.follow_up_sender import FollowUpSender
from headrace_worker.execution.follow_ups import ClaimFollowUps, FollowUpPlanner
from headrace_worker.execution.forged import drop_forged
from headrace_worker.execution.opening import ParsedClaim, open_claim
from headrace_worker.execution.publish import publish_outcomes
from headrace_worker.execution.records import encode_executions
from headrace_worker.execution.report import ClaimReport, Listener, ProgressListener
from headrace_worker.execution.settle import ClaimDecisions, OutcomeDecider
from headrace_worker.manifest import Limits
from headrace_worker.transport.claims import Claim
from headrace_worker.transport.leases import Leases

if TYPE_CHECKING:
    from headrace_worker.models.registry import Registry

log = logging.getLogger("headrace.claims")


class ClaimRunner:
    """Runs claims in one pool process.

    `worker` is the worker's name, as Celery has it. `ttl` is the number of seconds for which outcomes are
    kept, `record_ttl` the number for which the record of an unfinished job is kept. `events` also follows claims
    while they run. `bulk` runs the jobs of bulk queues.
    """

    def __init__(
        self,
        client: redis.Redis,
        leases: Leases,
        registry: Registry,
        *,
        worker: str,
        keys: Keys,
        ttl: int,
        record_ttl: int,
        events: ProgressListener | None,
        planner: FollowUpPlanner,
        sender: FollowUpSender,
        bulk: BulkJobs | None = None,
        trust: Trust | None = None,
        job_limits: JobLimits | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._client, self._leases, self._registry = client, leases, registry
        self._worker, self._keys, self._ttl, self._record_ttl = worker, keys, ttl, record_ttl
        self._events, self._trust, self._job_limits = events, trust, job_limits or JobLimits()
        self._planner, self._sender, self._bulk = planner, sender, bulk
        self._listeners = [events, *listeners] if events else listeners

    def run(self, claim: Claim) -> None:
        """Run a claim to its end. Raises redis.RedisError if Redis stays unreachable."""
        started_at = time.monotonic()
        now = claim.server_time(started_at)
        if self._events:
            self._events.on_claim_received(len(claim.queued_messages))
        parsed = open_claim(claim, now, self._limits_of, trust=self._trust, job_limits=self._job_limits)
        cancelled = self._drop_finished(parsed, now) if claim.check_outcomes else []
        if self._events:
            self._events.on_jobs_started(parsed.jobs, now)
        bulk = self._bulk if is_bulk_queue(claim.lease.queue) else None
        if bulk is None:
            predicted, batch_runs = predict.run(parsed.jobs, self._registry, now)
        else:
            predicted, batch_runs = bulk.run(parsed, now), []
        predicted_at = time.monotonic()
        now = claim.server_time(predicted_at)
        follow_ups = ClaimFollowUps(self._planner, int(now.timestamp() * 1000))
        results = follow_ups.plan_successes(predicted)
        results = drop_forged(self._client, self._keys, claim, parsed, results)
        decisions = self._decide(claim, parsed, results, now)
        all_results = [*parsed.finished, *results]
        follow_ups.plan_others(all_results, decisions.outcomes, cancelled)
        published = publish_outcomes(
            self._leases,
            claim.lease,
            decisions,
            now=now,
            ttl=self._ttl,
            record_ttl=self._record_ttl,
            reply_channels={
                result.claimed.job.id: result.claimed.reply_channel
                for result in all_results
                if result.claimed.reply_channel is not None
            },
            executions=encode_executions(claim, all_results),
            without_result=parsed.without_result,
            worker=self._worker,
            links=follow_ups.links,
            follow_ups=follow_ups.stored,
            hold_ms=self._sender.lease_ms,
            run_update=None if bulk is None else bulk.make_update(all_results, cancelled, decisions.outcomes, now),
        )
        if follow_ups.stored and published is not None:
            self._sender.send(follow_ups.members)
        self._report(
            ClaimReport(
                claim=claim,
                worker=self._worker,
                parsed=parsed,
                results=results,
                batch_runs=batch_runs,
                cancelled=cancelled,
                decisions=decisions,
                published=published,
                started_at=started_at,
                predicted_at=predicted_at,
                published_at=time.monotonic(),
            )
        )

    def _decide(
        self, claim: Claim, parsed: ParsedClaim, results: Sequence[JobResult], now: datetime
    ) -> ClaimDecisions:
        decider = OutcomeDecider(
            queue=claim.lease.queue,
            owner=claim.lease.owner,
            worker=self._worker,
            now_ms=int(now.timestamp() * 1000),
            chance=random.random,
        )
        decider.add_results(parsed.finished)
        decider.add_malformed(parsed.malformed)
        decider.add_not_due(parsed.not_due)
        decider.add_results(results)
        return decider.decisions

    def _report(self, report: ClaimReport) -> None:
        for listener in self._listeners:
            try:
                listener.on_claim_finished(report)
            except Exception as error:  # noqa: BLE001  # the outcomes are published; a listener only reports them
                # The error's message may quote a payload.
                log.error("the listener %s failed: %s", type(listener).__qualname__, type(error).__qualname__)  # noqa: TRY400

    def _limits_of(self, model: str, version: str | None) -> Limits:
        """Return the limits of a model from the store, without loading it: that may be what crashes.

        Without a version, they are those of the version that serves.
        """
        store, route = self._registry.store, self._registry.route(model)
        try:
            if version is None or not is_version(version):
                version = (route and route.default) or store.latest(model)
            return store.read_manifest(model, version).limits
        except (HeadraceError, OSError):
            return Limits()

    def _drop_finished(self, parsed: ParsedClaim, now: datetime) -> list[ClaimedJob]:
        """Drop the jobs that have an outcome: a job that was cancelled while it waited does not run.

        Return the cancelled jobs.
        """
        if not parsed.jobs:
            return []
        run(partial(execute, self._client), carry_out_requests(self._keys, ttl=self._ttl, now=now))
        names = [self._keys.result(claimed.job.id) for claimed in parsed.jobs]
        stored: list[bytes | None] = self._client.mget(names)  # type: ignore[assignment]  # bytes
        outcomes = [None if raw is None else _decode(raw) for raw in stored]
        pairs = list(zip(parsed.jobs, outcomes, strict=True))
        parsed.jobs[:] = [claimed for claimed, outcome in pairs if outcome is None]
        return [claimed for claimed, outcome in pairs if isinstance(outcome, Cancelled)]


def _decode(raw: bytes) -> Outcome | None:
    try:
        return decode_outcome(raw)
    except DECODE_ERRORS:
        return None  # the key holds something else; the script decides whether it may be overwritten
