"""Reports of claims as a pool process makes them, for tests of what receives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headrace.wire.attempts import Attempt, decode_queued_message
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure, Outcome
from headrace_worker.execution.batching import Batch
from headrace_worker.execution.claimed_job import Admitted, ClaimedJob, JobResult
from headrace_worker.execution.opening import ParsedClaim
from headrace_worker.execution.predict import BatchRun
from headrace_worker.execution.report import ClaimReport
from headrace_worker.execution.settle import ClaimDecisions
from headrace_worker.transport.claims import Claim

_NO_OUTCOME = Failure(job="", reason="permanent", error="E", module="m", message="")


def claimed_job(job: Job, *attempts: Attempt, queued_message: bytes | None = None) -> ClaimedJob:
    """Return a job as it was claimed; with its attempts taken from `queued_message`, if that is given."""
    if queued_message is not None:
        attempts, _ = decode_queued_message(queued_message)
    return ClaimedJob(job, encode_message(job), attempts)


def batch_run(
    jobs: Iterable[ClaimedJob],
    model: Any,
    *,
    method: str = "predict",
    started_at: float = 0.0,
    finished_at: float = 0.0,
) -> BatchRun:
    """Return the run of jobs as one batch. The times are seconds of the monotonic clock."""
    admitted = [Admitted(claimed, model, method, claimed.job.instances) for claimed in jobs]
    return BatchRun(batch=Batch(model, method, admitted), started_at=started_at, finished_at=finished_at)


def claim_report(
    claim: Claim,
    batch_runs: Sequence[BatchRun] = (),
    *,
    outcomes: Iterable[Outcome] = (),
    not_run: Iterable[ClaimedJob] = (),
    cancelled: Sequence[ClaimedJob] = (),
    decisions: ClaimDecisions | None = None,
    lease_lost: bool = False,
    times: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> ClaimReport:
    """Return the report of a claim whose jobs are those of the batches, and those that were `not_run`.

    `cancelled` are jobs that were cancelled before.

    `outcomes` are the published ones. `times` are the claim's start, the end of the last batch and the end of
    publishing: seconds of the monotonic clock.
    """
    outcomes = list(outcomes)
    by_job = {outcome.job: outcome for outcome in outcomes}
    results = [
        JobResult(admitted.claimed, by_job.get(admitted.claimed.job.id, _NO_OUTCOME), admitted, run)
        for run in batch_runs
        for admitted in run.batch.jobs
    ]
    results += [JobResult(claimed, by_job.get(claimed.job.id, _NO_OUTCOME)) for claimed in not_run]
    started_at, predicted_at, published_at = times
    return ClaimReport(
        claim=claim,
        worker="w@here",
        parsed=ParsedClaim(jobs=[result.claimed for result in results]),
        results=results,
        batch_runs=batch_runs,
        cancelled=cancelled,
        decisions=decisions or ClaimDecisions(outcomes=by_job),
        published=None if lease_lost else outcomes,
        started_at=started_at,
        predicted_at=predicted_at,
        published_at=published_at,
    )
