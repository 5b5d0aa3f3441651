"""Tally what became of a claim: a pure function of its record, called once for a claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from headrace.wire.attempts import CRASH, ERROR_PREFIX, LEASE_EXPIRED, REPLAY, REQUEUED, TIMEOUT
from headrace.wire.keys import model_name
from headrace.wire.message import submission_time
from headrace.wire.outcome import Success, outcome_status
from headrace_worker.telemetry import metrics
from headrace_worker.telemetry.metrics import MetricDelta

if TYPE_CHECKING:
    from headrace_worker.execution.batching import Batch
    from headrace_worker.execution.report import ClaimReport

#: The causes of attempts by which they are counted: what a frame says may be anything.
_CAUSES = {CRASH, LEASE_EXPIRED, TIMEOUT, REPLAY, REQUEUED}


class ClaimMetrics:
    """Tallies each claim, and hands the tally on."""

    def __init__(self, send: Callable[[MetricDelta], None], *, claim_jobs: int) -> None:
        self._send, self._claim_jobs = send, claim_jobs

    def on_claim_finished(self, report: ClaimReport) -> None:
        """A claim has ended."""
        tally = MetricDelta()
        count_claim(report, tally, claim_jobs=self._claim_jobs)
        self._send(tally)


def count_claim(report: ClaimReport, tally: MetricDelta, *, claim_jobs: int) -> None:
    """Add a claim to a tally. `claim_jobs` is the number of jobs a claim takes at the most."""
    model = model_name(report.claim.lease.queue)
    if model is None:
        return
    if report.published is None:
        tally.add(metrics.LEASE_LOSSES, (model,))
        return
    _outcomes(report, tally, model)
    if retried := len(report.decisions.retried):
        tally.add(metrics.RETRIES, (model,), retried)
    for cause, number in Counter(_causes(report)).items():
        tally.add(metrics.ATTEMPTS, (model, cause), number)
    tally.observe(metrics.WAIT_SECONDS, (model,), _waits(report))
    _batches(report, tally, model, claim_jobs)
    tally.observe(metrics.PUBLISH_SECONDS, (model,), [report.published_at - report.predicted_at])


def _outcomes(report: ClaimReport, tally: MetricDelta, model: str) -> None:
    published = report.published or ()
    kinds: Counter[tuple[str, str, str]] = Counter()
    versions: dict[str, tuple[str, str]] | None = None
    for outcome in published:
        if type(outcome) is Success:
            made = outcome.prediction
            kinds[made.model, made.version, "success"] += 1
            continue
        if versions is None:
            versions = _ran(report)
        name, version = versions.get(outcome.job, (model, ""))
        kinds[name, version, outcome_status(outcome)] += 1
    for labels, number in kinds.items():
        tally.add(metrics.JOBS, labels, number)
    if report.decisions.letters:
        ended = {outcome.job for outcome in published}
        for letter, _ in report.decisions.letters:
            if letter.reason == "malformed" or letter.id in ended:
                tally.add(metrics.DEAD_LETTERS, (model, letter.reason))


def _ran(report: ClaimReport) -> dict[str, tuple[str, str]]:
    """Model and version of the jobs that ran."""
    return {
        result.claimed.job.id: (manifest.name, manifest.version)
        for result in report.results
        if result.admitted is not None
        for manifest in (result.admitted.model.manifest,)
    }


def _causes(report: ClaimReport) -> Iterator[str]:
    """Why the runs that jobs had behind them did not end them, for jobs that have ended now."""
    ended = {outcome.job for outcome in report.published or ()}
    for result in (*report.parsed.finished, *report.results):
        if result.claimed.attempts and result.claimed.job.id in ended:
            for attempt in result.claimed.attempts:
                cause = attempt.cause
                yield cause if cause in _CAUSES else "error" if cause.startswith(ERROR_PREFIX) else "other"


def _waits(report: ClaimReport) -> Iterator[float]:
    """Seconds that jobs waited until they were claimed, as far as their ids tell when they were submitted."""
    claimed = report.server_time(report.claim.claimed_monotonic)
    for entry in report.parsed.jobs:
        job = entry.job
        since = submission_time(job.id)
        if since is None or entry.attempts:
            continue
        if job.eta is not None and job.eta > since:
            since = job.eta
        yield (claimed - since).total_seconds()


def _batches(report: ClaimReport, tally: MetricDelta, model: str, claim_jobs: int) -> None:
    if not report.batch_runs:
        return
    tally.observe(
        metrics.BATCH_SECONDS, (model,), [report.batch_runs[0].started_at - report.claim.claimed_monotonic]
    )
    for run in report.batch_runs:
        manifest = run.batch.model.manifest
        labels = (manifest.name, manifest.version)
        rows = run.batch.instance_count
        tally.observe(metrics.PREDICT_SECONDS, labels, [run.duration])
        tally.observe(metrics.BATCH_ROWS, labels, [rows])
        tally.add(metrics.BATCHES, (*labels, batch_cut(report, run.batch, rows, claim_jobs)))


def batch_cut(report: ClaimReport, batch: Batch, rows: int, claim_jobs: int) -> str:
    """Why a batch holds no more: `rows`, `bytes`, `jobs`, `alone`, `mixed`, or `empty`: nothing more waited."""
    frames, limits = report.claim.queued_messages, batch.model.manifest.limits
    if rows >= limits.max_batch_instances:
        return "rows"
    if len(frames) == 1 and report.parsed.jobs[0].attempts:
        return "alone"
    if len(frames) >= min(claim_jobs, limits.max_batch_instances):
        return "jobs" if len(report.batch_runs) == 1 else "mixed"
    if sum(map(len, frames)) >= limits.max_batch_bytes:
        return "bytes"
    return "empty" if len(report.batch_runs) == 1 else "mixed"
