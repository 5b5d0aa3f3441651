"""The metrics of a finished claim: `count_claim` is a pure function of the claim's report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from headrace.wire.attempts import CRASH, ERROR_PREFIX, LEASE_EXPIRED, REPLAY, REQUEUED, TIMEOUT
from headrace.wire.message import submission_ms
from headrace.wire.outcome import Success, outcome_status
from headrace.wire.queues import model_name
from headrace_worker.telemetry import metrics
from headrace_worker.telemetry.metrics import MetricDelta

if TYPE_CHECKING:
    from headrace_worker.execution.batching import Batch
    from headrace_worker.execution.report import ClaimReport

#: The causes that become labels. Any other text, which a message may contain, is counted as `error` or `other`.
_CAUSES = {CRASH, LEASE_EXPIRED, TIMEOUT, REPLAY, REQUEUED}


class ClaimMetrics:
    """A listener that counts each claim and sends the numbers with `send`.

    `claim_jobs` is the largest number of jobs in a claim.
    """

    def __init__(self, send: Callable[[MetricDelta], None], *, claim_jobs: int) -> None:
        self._send, self._claim_jobs = send, claim_jobs

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Count the claim."""
        delta = MetricDelta()
        count_claim(report, delta, claim_jobs=self._claim_jobs)
        self._send(delta)


def count_claim(report: ClaimReport, delta: MetricDelta, *, claim_jobs: int) -> None:
    """Add the numbers of a claim to a delta. `claim_jobs` is the largest number of jobs in a claim."""
    model = model_name(report.claim.lease.queue)
    if model is None:
        return
    if report.published is None:
        delta.add(metrics.LEASE_LOSSES, (model,))
        return
    _count_outcomes(report, delta, model)
    if retried := len(report.decisions.retried):
        delta.add(metrics.RETRIES, (model,), retried)
    for cause, number in Counter(_causes(report)).items():
        delta.add(metrics.ATTEMPTS, (model, cause), number)
    delta.observe(metrics.WAIT_SECONDS, (model,), _wait_seconds(report))
    _count_batches(report, delta, model, claim_jobs)
    delta.observe(metrics.PUBLISH_SECONDS, (model,), [report.published_at - report.predicted_at])


def _count_outcomes(report: ClaimReport, delta: MetricDelta, model: str) -> None:
    published = report.published or ()
    outcomes: Counter[tuple[str, str, str]] = Counter()
    versions: dict[str, tuple[str, str]] | None = None
    for outcome in published:
        if type(outcome) is Success:
            prediction = outcome.prediction
            outcomes[prediction.model, prediction.version, "success"] += 1
            continue
        if versions is None:
            versions = _versions_by_job(report)
        name, version = versions.get(outcome.job, (model, ""))
        outcomes[name, version, outcome_status(outcome)] += 1
    for labels, number in outcomes.items():
        delta.add(metrics.JOBS, labels, number)
    if report.decisions.letters:
        published_jobs = {outcome.job for outcome in published}
        for letter, _ in report.decisions.letters:
            if letter.reason == "malformed" or letter.id in published_jobs:
                delta.add(metrics.DEAD_LETTERS, (model, letter.reason))


def _versions_by_job(report: ClaimReport) -> dict[str, tuple[str, str]]:
    """Return the model and the version of each job that was admitted, by the job's id."""
    return {
        result.claimed.job.id: (manifest.name, manifest.version)
        for result in report.results
        if result.admitted is not None
        for manifest in (result.admitted.model.manifest,)
    }


def _causes(report: ClaimReport) -> Iterator[str]:
    """Yield the causes of the earlier attempts of jobs that have their outcome now."""
    published_jobs = {outcome.job for outcome in report.published or ()}
    for result in (*report.parsed.finished, *report.results):
        if result.claimed.attempts and result.claimed.job.id in published_jobs:
            for attempt in result.claimed.attempts:
                cause = attempt.cause
                yield cause if cause in _CAUSES else "error" if cause.startswith(ERROR_PREFIX) else "other"


def _wait_seconds(report: ClaimReport) -> Iterator[float]:
    """Yield the seconds from each job's submission or `eta` to the claim.

    Jobs with earlier attempts are left out, and jobs whose id does not contain the time of submission.
    """
    claimed_ms = report.claim.claimed_ms
    for claimed in report.parsed.jobs:
        due_ms: float | None = submission_ms(claimed.job.id)
        if due_ms is None or claimed.attempts:
            continue
        if (eta := claimed.job.eta) is not None:
            due_ms = max(due_ms, eta.timestamp() * 1000)
        yield (claimed_ms - due_ms) / 1000


def _count_batches(report: ClaimReport, delta: MetricDelta, model: str, claim_jobs: int) -> None:
    if not report.batch_runs:
        return
    delta.observe(
        metrics.BATCH_SECONDS, (model,), [report.batch_runs[0].started_at - report.claim.claimed_monotonic]
    )
    for run in report.batch_runs:
        manifest = run.batch.model.manifest
        labels = (manifest.name, manifest.version)
        instances = run.batch.instance_count
        delta.observe(metrics.PREDICT_SECONDS, labels, [run.duration])
        delta.observe(metrics.BATCH_INSTANCES, labels, [instances])
        delta.add(metrics.BATCHES, (*labels, batch_cut(report, run.batch, instances, claim_jobs)))


def batch_cut(report: ClaimReport, batch: Batch, instances: int, claim_jobs: int) -> str:
    """Return the reason why a batch of so many instances holds no more jobs.

    `instances`, `jobs` and `bytes` are the limit that was reached; `alone` is a job that is isolated; `mixed` is a
    claim with jobs of several versions or methods; `empty` means that no more jobs waited.
    """
    queued_messages, limits = report.claim.queued_messages, batch.model.manifest.limits
    if instances >= limits.max_batch_instances:
        return "instances"
    if len(queued_messages) == 1 and report.parsed.jobs[0].attempts:
        return "alone"
    if len(queued_messages) >= min(claim_jobs, limits.max_batch_instances):
        return "jobs" if len(report.batch_runs) == 1 else "mixed"
    if sum(map(len, queued_messages)) >= limits.max_batch_bytes:
        return "bytes"
    return "empty" if len(report.batch_runs) == 1 else "mixed"
