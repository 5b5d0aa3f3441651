"""Reports to Sentry, without payloads, if SENTRY_DSN is set.

Sentry receives the errors of models, one event for all jobs of a claim that failed in the same way; jobs that
failed after crashes or timeouts; and the worker's own error lines, such as a lost pool process. `sentry_queue` has
the spans of Sentry's Queues page.

Call `start` before anything imports `celery.worker.consumer.consumer`: Sentry's Celery integration patches that
module when it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sentry_sdk
from celery import signals
from sentry_sdk.crons import capture_checkin
from sentry_sdk.integrations.argv import ArgvIntegration
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.redis import RedisIntegration
from sentry_sdk.utils import BadDsn

from headrace.errors import SettingError
from headrace.wire.queues import is_bulk_queue
from headrace_worker.redaction import redact
from headrace_worker.telemetry.sentry_queue import QueueSpans
from headrace_worker.transport.message import CLAIM_TASK

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint, MonitorConfig, SamplingContext

    from headrace.wire.dead_letter import DeadLetter
    from headrace_worker.execution.claimed_job import FailedRun
    from headrace_worker.execution.report import ClaimReport, Listener

#: Job ids that an event lists at most.
_MAX_IDS = 10
#: The reasons of failures that have no exception of a model.
_WITHOUT_EXCEPTION = ("crash", "timeout", "attempts exhausted")
#: The Sentry monitor of the sweeper, which requeues the jobs of expired leases. Every worker checks in after its
#: sweep; Sentry alerts when none has for a few minutes.
_SWEEPER = "headrace-sweeper"
_SCHEDULE: MonitorConfig = {
    "schedule": {"type": "interval", "value": 1, "unit": "minute"},
    "checkin_margin": 2,
    "failure_issue_threshold": 2,
}


def start(release: str) -> bool:
    """Start Sentry if SENTRY_DSN is set, and return True if it is. Raises SettingError if it is not a DSN."""
    if not os.environ.get("SENTRY_DSN"):
        return False
    try:
        _initialise(release, traces_sample_rate())
    except BadDsn:
        raise SettingError("SENTRY_DSN is not a DSN; copy it from the project's settings in Sentry") from None
    # A pool process initialises again: it may inherit locks that the main process held when it forked.
    signals.worker_process_init.connect(lambda **_: _initialise(release, traces_sample_rate()), weak=False)
    return True


def _initialise(release: str, rate: float) -> None:
    sentry_sdk.init(
        release=os.environ.get("SENTRY_RELEASE") or f"headrace-worker@{release}",
        # Local variables of a model contain feature values, and the arguments of a task may.
        include_local_variables=False,
        send_default_pii=False,
        # A line that a model logs may contain them too.
        max_breadcrumbs=0,
        integrations=[CeleryIntegration()],
        # A command line may contain the password of Redis. Spans of Redis commands would belong to the transaction
        # of a claim, which is never sent, and making them takes longer than the commands.
        disabled_integrations=[ArgvIntegration(), RedisIntegration()],
        before_send=_remove_payload,
        before_send_transaction=_remove_payload,
        traces_sampler=lambda context: _sample_rate(context, rate),
    )


def traces_sample_rate() -> float:
    """Return SENTRY_TRACES_SAMPLE_RATE, the share of the jobs to trace whose producer did not decide.

    It is 0 by default. Raises SettingError.
    """
    try:
        rate = float(os.environ.get("SENTRY_TRACES_SAMPLE_RATE") or "0")
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise SettingError("SENTRY_TRACES_SAMPLE_RATE is a number from 0 to 1")
    return rate


def _sample_rate(context: SamplingContext, rate: float) -> float:
    # Jobs have transactions of their own (`sentry_queue`), which do not call this; the claim's has no information.
    if (context.get("celery_job") or {}).get("task") == CLAIM_TASK:
        return 0.0
    parent = context.get("parent_sampled")
    return rate if parent is None else float(parent)


def _remove_payload(event: Event, hint: Hint) -> Event | None:  # noqa: ARG001  # Sentry's signature
    logger = event.get("logger")
    if logger and not logger.startswith("headrace"):
        return None  # a line of another library may quote anything
    # The Celery integration adds the arguments of the task: the instances.
    event.get("extra", {}).pop("celery-job", None)
    return event


def listeners() -> list[Listener]:
    """Return the listeners that report claims to Sentry; none if it is off."""
    return [ErrorReporter(), QueueSpans(traces_sample_rate())] if sentry_sdk.is_initialized() else []


def check_in() -> None:
    """Report to Sentry, if it is on, that this worker has swept expired leases."""
    if sentry_sdk.is_initialized():
        capture_checkin(monitor_slug=_SWEEPER, status="ok", monitor_config=_SCHEDULE)


class ErrorReporter:
    """A listener that reports the errors of models that ended jobs, and jobs that failed without an exception."""

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Report the failures of the claim. A bulk run that fails is one event (`run_reports`)."""
        if report.published is None or is_bulk_queue(report.claim.lease.queue):
            return
        for failed_runs in _group_errors(report.decisions.model_errors):
            _send_error(failed_runs)
        reported = {failed.admitted.claimed.job.id for failed in report.decisions.model_errors}
        for letters in _group_letters(report.decisions.letters, reported):
            _send_message(letters)


def _group_errors(failed_runs: Sequence[FailedRun]) -> Iterator[list[FailedRun]]:
    """Group the failed runs of a claim by model, version, type of error, and the line that raised it."""
    groups: dict[Any, list[FailedRun]] = {}
    for failed in failed_runs:
        manifest = failed.admitted.model.manifest
        key = (type(failed.error), manifest.name, manifest.version, _raising_line(failed.error))
        groups.setdefault(key, []).append(failed)
    yield from groups.values()


def _raising_line(error: BaseException) -> tuple[str, int] | None:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return None if frame is None else (frame.tb_frame.f_code.co_filename, frame.tb_lineno)


def _send_error(failed_runs: Sequence[FailedRun]) -> None:
    admitted = failed_runs[0].admitted
    claimed, manifest = admitted.claimed, admitted.model.manifest
    job = claimed.job
    with sentry_sdk.new_scope() as scope:
        scope.set_tag("headrace.model", manifest.name)
        scope.set_tag("headrace.version", manifest.version)
        scope.set_tag("headrace.job", job.id)
        scope.set_tag("headrace.attempt", str(len(claimed.attempts) + 1))
        _set_ids([failed.admitted.claimed.job.id for failed in failed_runs])
        scope.fingerprint = ["{{ default }}", manifest.name, manifest.version]

        def redact_event(event: Event, hint: Hint) -> Event:  # noqa: ARG001  # Sentry's signature
            for value in event.get("exception", {}).get("values", []):
                value["value"] = redact(str(value.get("value") or ""), job.instances)
            return event

        scope.add_event_processor(redact_event)
        sentry_sdk.capture_exception(failed_runs[0].error)


def _group_letters(letters: Sequence[tuple[DeadLetter, bytes]], reported: set[str]) -> Iterator[list[DeadLetter]]:
    """Group the dead letters of jobs that failed without an exception. `reported` jobs are left out."""
    groups: dict[Any, list[DeadLetter]] = {}
    for letter, _ in letters:
        if letter.reason in _WITHOUT_EXCEPTION and letter.id not in reported:
            groups.setdefault((letter.model, letter.version, letter.reason, letter.error), []).append(letter)
    yield from groups.values()


def _send_message(letters: Sequence[DeadLetter]) -> None:
    first = letters[0]
    with sentry_sdk.new_scope() as scope:
        scope.set_tag("headrace.model", first.model)
        scope.set_tag("headrace.version", first.version)
        scope.set_tag("headrace.job", first.id)
        scope.set_tag("headrace.attempt", str(len(first.attempts)))
        scope.set_tag("headrace.reason", first.reason)
        _set_ids([letter.id for letter in letters])
        scope.fingerprint = ["headrace failed jobs", str(first.model), first.reason]
        sentry_sdk.capture_message(f"jobs of {first.model} failed: {first.reason}", level="error")


def _set_ids(jobs: Sequence[str]) -> None:
    sentry_sdk.get_current_scope().set_context("headrace", {"jobs": len(jobs), "ids": list(jobs[:_MAX_IDS])})
