"""The spans of jobs for Sentry's Queues page: each job's wait, duration and status.

A job has spans if its producer's trace is sampled (`headrace.submit.tracing`, or Sentry in any Celery client). Of
the jobs whose producer did not decide, the share SENTRY_TRACES_SAMPLE_RATE has spans. Sentry's page "Instrument
Queues" defines their form.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import sentry_sdk

from headrace.wire.message import submission_time
from headrace.wire.outcome import Failure

if TYPE_CHECKING:
    from headrace.wire.message import Job
    from headrace_worker.execution.claimed_job import ClaimedJob
    from headrace_worker.execution.report import ClaimReport


class QueueSpans:
    """A listener that sends a transaction for each sampled job.

    `rate` is the share of the other producers' jobs; `chance` returns a random number from 0 to 1.
    """

    def __init__(self, rate: float, chance: Callable[[], float] = random.random) -> None:
        self._rate, self._chance = rate, chance

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Send the transactions of the claim's jobs."""
        if report.published is None:
            return
        failed = {outcome.job for outcome in report.published if isinstance(outcome, Failure)}
        failed |= {retried.admitted.claimed.job.id for retried in report.decisions.retried}
        for claimed in report.parsed.jobs:
            if self._is_sampled(claimed.job):
                _send(claimed, report, failed=claimed.job.id in failed)

    def _is_sampled(self, job: Job) -> bool:
        trace = (job.trace or {}).get("sentry-trace", "")
        if trace.endswith(("-0", "-1")):  # the producer has decided
            return trace.endswith("-1")
        return self._rate > 0 and self._chance() < self._rate


def _send(claimed: ClaimedJob, report: ClaimReport, *, failed: bool) -> None:
    job, queue, claimed_at = claimed.job, report.claim.lease.queue, report.claim.claimed_ms / 1000
    status = "internal_error" if failed else "ok"
    with sentry_sdk.isolation_scope() as scope:
        continued = scope.continue_trace(
            job.trace or {}, op="queue.task", name=queue, source="task", origin="auto.queue"
        )
        continued.sampled, continued.start_timestamp = True, report.server_time(report.claim.claimed_monotonic)
        transaction = sentry_sdk.start_transaction(continued)
        span = transaction.start_child(op="queue.process", name=queue, start_timestamp=claimed_at)
        span.set_data("messaging.system", "redis")
        span.set_data("messaging.destination.name", queue)
        span.set_data("messaging.message.id", job.id)
        span.set_data("messaging.message.body.size", len(claimed.message))
        span.set_data("messaging.message.retry.count", len(claimed.attempts))
        if (submitted := submission_time(job.id)) is not None:
            # Milliseconds; negative if the producer's clock is ahead.
            wait = claimed_at - submitted.timestamp()
            span.set_data("messaging.message.receive.latency", max(0.0, 1000 * wait))
        span.set_status(status)
        transaction.set_status(status)
        finished_at = report.server_time(report.published_at)
        span.finish(end_timestamp=finished_at)
        transaction.set_tag("headrace.model", job.model)
        transaction.finish(end_timestamp=finished_at)
