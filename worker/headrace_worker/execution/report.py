"""The report of a claim that ran to its end, and the listeners that receive it: events, metrics, traces, logs.

A listener only reports. No job depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from headrace.wire.outcome import Outcome
from headrace_worker.execution.claimed_job import ClaimedJob, JobResult
from headrace_worker.execution.opening import ParsedClaim
from headrace_worker.execution.predict import BatchRun
from headrace_worker.execution.settle import ClaimDecisions
from headrace_worker.transport.claims import Claim


class ClaimReport(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that was run to its end.

    It holds payloads. A listener must not pass them on unless a setting allows it.
    """

    claim: Claim
    #: The worker's name, as Celery has it.
    worker: str
    parsed: ParsedClaim
    #: The results of `parsed.jobs`, in the same order. `parsed.finished` has those of the jobs that did not run.
    results: Sequence[JobResult]
    #: In the order in which they were predicted.
    batch_runs: Sequence[BatchRun]
    #: Jobs that had been cancelled before they could run.
    cancelled: Sequence[ClaimedJob] = ()
    decisions: ClaimDecisions
    #: The outcomes that were stored; None if the lease had expired and none was.
    published: Sequence[Outcome] | None
    #: When the claim was opened, when the last batch ended, and when all was published: this machine's monotonic
    #: clock, in seconds.
    started_at: float
    predicted_at: float
    published_at: float

    def server_time(self, monotonic: float) -> datetime:
        """Return the server's time at a reading of this machine's monotonic clock."""
        return self.claim.server_time(monotonic)


class Listener(Protocol):
    """A receiver of the reports of this pool process."""

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Handle the end of a claim. An exception is logged, and affects no job."""
        ...


class ProgressListener(Listener, Protocol):
    """A listener that also follows a claim while it runs."""

    def on_claim_received(self, jobs: int) -> None:
        """Handle the arrival of a claim of `jobs` messages in the pool process."""
        ...

    def on_jobs_started(self, jobs: Sequence[ClaimedJob], now: datetime) -> None:
        """Handle the start of these jobs."""
        ...
