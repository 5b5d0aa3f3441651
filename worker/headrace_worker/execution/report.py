"""The record of a claim: all there is to tell of it once it has ended, to events, metrics, traces and the rest.

Whoever wants to know of jobs is a `Listener`. What it does is news of a job, never a reason to lose one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from headrace.wire.message import Job
from headrace.wire.outcome import Outcome
from headrace_worker.execution.opening import ParsedClaim
from headrace_worker.execution.predict import BatchRun
from headrace_worker.execution.settle import ClaimDecisions
from headrace_worker.transport.leases import Claim


class ClaimReport(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that was run to its end. It holds payloads: who tells of it leaves them out."""

    claim: Claim
    #: The worker's name, as Celery has it.
    worker: str
    opened: ParsedClaim
    #: In the order they were predicted.
    batches: Sequence[BatchRun]
    settled: ClaimDecisions
    #: The outcomes that count; None when the lease was lost and none does.
    published: Sequence[Outcome] | None
    #: When the messages were opened, the last batch had ended, and all was published: this machine's monotonic
    #: clock, in seconds. `moment` tells what the server's clock says then.
    started_at: float
    predicted_at: float
    published_at: float

    def moment(self, monotonic: float) -> datetime:
        """What the server's clock says at one of the moments above."""
        return self.claim.moment(monotonic)


class Listener(Protocol):
    """Is told of every claim that a pool process has run to its end."""

    def on_claim_finished(self, report: ClaimReport) -> None:
        """A claim has ended. What it raises is logged, and costs no job."""
        ...


class ProgressListener(Listener, Protocol):
    """Is told of a claim while it runs, too."""

    def on_claim_received(self, jobs: int) -> None:
        """A claim of this many messages has arrived in the pool process."""
        ...

    def on_jobs_started(self, jobs: Sequence[Job], now: datetime, frames: Sequence[bytes] = ()) -> None:
        """These jobs are about to run. `frames` are their messages, with the attempts they have behind them."""
        ...
