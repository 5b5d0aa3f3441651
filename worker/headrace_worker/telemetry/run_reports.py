"""Reports of bulk runs: a log line when one is planned and when it has ended, one Sentry event if it failed.

The claim that ended a run cannot be told from one that ended beside it. So after each job of a run the run is
read, and whoever is first to mark it reports it. A run that is resumed is reported anew.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import redis
import sentry_sdk

from headrace.bulk.progress import decode_progress
from headrace.errors import StoredDataError
from headrace.text import format_duration, plural
from headrace.wire.bulk import FINAL_STATES, PlanStep, RunProgress, run_of
from headrace.wire.keys import Keys
from headrace.wire.outcome import BulkSuccess
from headrace.wire.queues import is_bulk_queue

if TYPE_CHECKING:
    from headrace_worker.execution.report import ClaimReport

log = logging.getLogger("headrace.bulk")

#: The start of the field of a run that marks the report of a round.
_REPORTED_PREFIX = "reported:"


class RunReports:
    """A listener that reports the runs which a claim has planned or ended."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Report the run of the claim's job, if it was planned or has ended."""
        if report.published is None or not is_bulk_queue(report.claim.lease.queue):
            return
        planned = {outcome.job for outcome in report.published if type(outcome) is BulkSuccess}
        for result in (*report.parsed.finished, *report.results):
            job = result.claimed.job
            name = "" if job.step is None else run_of(job.step)
            progress = self._read(name) if name else None
            if progress is None:
                continue
            if job.id in planned and isinstance(job.step, PlanStep):
                _log_planned(progress)
            if progress.state in FINAL_STATES and self._is_first(progress):
                _log_ended(progress)
                if progress.state == "failure" and sentry_sdk.is_initialized():
                    _send_event(progress)

    def _read(self, name: str) -> RunProgress | None:
        try:
            return decode_progress(name, self._client.hgetall(self._keys.run(name)))
        except StoredDataError:
            return None

    def _is_first(self, progress: RunProgress) -> bool:
        """Mark the end of the run as reported. Return whether nobody has done so in this round."""
        field = f"{_REPORTED_PREFIX}{progress.round}"
        return bool(self._client.hsetnx(self._keys.run(progress.run.name), field, "1"))


def describe_failure(progress: RunProgress) -> str:
    """Return why a run failed, in words that are the same for all failures alike: without numbers and values."""
    if progress.is_stopped:
        return "too many failed rows"
    if progress.chunks_failed:
        return "failed chunks"
    return (progress.error or "unknown").partition(":")[0]


def _fields(progress: RunProgress) -> dict[str, str | int | None]:
    run = progress.run
    return {
        "run": run.name,
        "model": run.model,
        "version": progress.version or run.version,
        "rows": progress.rows_done,
        "failed_rows": progress.rows_failed,
        "chunks": progress.chunks,
        "failed_chunks": progress.chunks_failed,
    }


def _log_planned(progress: RunProgress) -> None:
    chunks = plural(progress.chunks or 0, "chunk")
    log.info("planned the bulk run %s: %s", progress.run.name, chunks, extra=_fields(progress))


def _log_ended(progress: RunProgress) -> None:
    ended_ms = progress.ended_ms or progress.submitted_ms
    elapsed = format_duration(max(0, ended_ms - (progress.started_ms or progress.submitted_ms)))
    rows, failed = plural(progress.rows_done, "row"), progress.rows_failed
    if progress.state == "failure":
        log.warning(
            "the bulk run %s failed after %s, %s, %d of them failed: %s; `headrace bulk failures %s` says why",
            *(progress.run.name, elapsed, rows, failed, describe_failure(progress), progress.run.name),
            extra=_fields(progress),
        )
    else:
        outcome = "has finished" if progress.state == "success" else "was cancelled"
        text = "the bulk run %s %s after %s: %s, %d of them failed"
        log.info(text, progress.run.name, outcome, elapsed, rows, failed, extra=_fields(progress))


def _send_event(progress: RunProgress) -> None:
    """Send one event to Sentry. It has names and numbers, and no text of an error, which may quote a value."""
    name, model, reason = progress.run.name, progress.run.model, describe_failure(progress)
    with sentry_sdk.new_scope() as scope:
        scope.set_tag("headrace.run", name)
        scope.set_tag("headrace.model", model)
        scope.set_tag("headrace.version", progress.version or progress.run.version)
        scope.set_tag("headrace.reason", reason)
        scope.set_context("headrace", _fields(progress))
        scope.fingerprint = ["headrace failed bulk run", name, model, reason]
        sentry_sdk.capture_message(f"the bulk run {name} of {model} failed: {reason}", level="error")
