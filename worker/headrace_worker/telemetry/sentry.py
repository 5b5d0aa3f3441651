"""What a person should look at reaches Sentry when SENTRY_DSN is set, without payloads.

Errors of models, one event for all jobs of a claim that failed alike; jobs that were given up after crashes or
timeouts; what the worker logs as an error: a pool process that was lost, a worker that was. `sentry_queue` has the
spans of Sentry's Queues page.

`start` must run before anything imports `celery.worker.consumer.consumer`: Sentry's Celery integration
patches that module, and afterwards it is too late.
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
from sentry_sdk.utils import BadDsn

from headrace.errors import SettingError
from headrace_worker.execution.redaction import redact
from headrace_worker.telemetry.sentry_queue import QueueSpans
from headrace_worker.transport.message import CLAIM_TASK

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint, MonitorConfig, SamplingContext

    from headrace.wire.dead_letter import DeadLetter
    from headrace_worker.execution.claimed_job import FailedRun
    from headrace_worker.execution.report import ClaimReport, Listener

#: Ids of jobs that an event names.
_NAMED = 10
#: Why a job is given up without an error of its own.
_GIVEN_UP = ("crash", "timeout", "attempts exhausted")
#: Any worker's sweep will do; when none has swept for a few minutes, Sentry tells.
_SWEEPER = "headrace-sweeper"
_SCHEDULE: MonitorConfig = {
    "schedule": {"type": "interval", "value": 1, "unit": "minute"},
    "checkin_margin": 2,
    "failure_issue_threshold": 2,
}


def start(release: str) -> bool:
    """Start Sentry if SENTRY_DSN is set; says whether it is. Raises SettingError for a DSN that is none."""
    if not os.environ.get("SENTRY_DSN"):
        return False
    try:
        _begin(release, traces_sample_rate())
    except BadDsn:
        raise SettingError("SENTRY_DSN is no DSN; copy it from the project's settings in Sentry") from None
    # The main process may be sending as it forks: a pool process would inherit locks that nobody ever releases.
    signals.worker_process_init.connect(lambda **_: _begin(release, traces_sample_rate()), weak=False)
    return True


def _begin(release: str, rate: float) -> None:
    sentry_sdk.init(
        release=os.environ.get("SENTRY_RELEASE") or f"headrace-worker@{release}",
        # A local variable of a model holds feature values, and so may a task's arguments.
        include_local_variables=False,
        send_default_pii=False,
        # So may a line that a model logs.
        max_breadcrumbs=0,
        integrations=[CeleryIntegration()],
        # A command line may name a Redis with its password.
        disabled_integrations=[ArgvIntegration()],
        before_send=_without_payload,
        before_send_transaction=_without_payload,
        traces_sampler=lambda context: _sampled(context, rate),
    )


def traces_sample_rate() -> float:
    """SENTRY_TRACES_SAMPLE_RATE: the part of the jobs to trace whose producer did not say; 0 without it."""
    given = os.environ.get("SENTRY_TRACES_SAMPLE_RATE") or "0"
    try:
        rate = float(given)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise SettingError("SENTRY_TRACES_SAMPLE_RATE is a number from 0 to 1")
    return rate


def _sampled(context: SamplingContext, rate: float) -> float:
    # The transaction Sentry makes of a claim tells nothing; jobs have spans of their own, which do not ask here.
    if (context.get("celery_job") or {}).get("task") == CLAIM_TASK:
        return 0.0
    parent = context.get("parent_sampled")
    return rate if parent is None else float(parent)


def _without_payload(event: Event, hint: Hint) -> Event | None:  # noqa: ARG001  # Sentry's signature
    logger = event.get("logger")
    if logger and not logger.startswith("headrace"):
        return None  # what others log as an error may quote anything
    # The Celery integration attaches args and kwargs of the task: the instances.
    event.get("extra", {}).pop("celery-job", None)
    return event


def listeners() -> list[Listener]:
    """Those who tell Sentry of claims; none where it is off."""
    return [Errors(), QueueSpans(traces_sample_rate())] if sentry_sdk.is_initialized() else []


def check_in() -> None:
    """Tell Sentry, if it is on, that what was lost is swept up: this worker does."""
    if sentry_sdk.is_initialized():
        capture_checkin(monitor_slug=_SWEEPER, status="ok", monitor_config=_SCHEDULE)


class Errors:
    """Sends the errors of models that ended jobs, and the jobs that were given up without one."""

    def on_claim_finished(self, report: ClaimReport) -> None:
        """A claim has ended."""
        if report.published is None:
            return
        for failed in _alike(report.decisions.model_errors):
            _send(failed)
        told = {failed.admitted.claimed.job.id for failed in report.decisions.model_errors}
        for letters in _given_up(report.decisions.letters, told):
            _say_given_up(letters)


def _alike(failed_runs: Sequence[FailedRun]) -> Iterator[list[FailedRun]]:
    """The failed runs of a claim, grouped by model, version and error."""
    kinds: dict[Any, list[FailedRun]] = {}
    for failed in failed_runs:
        manifest = failed.admitted.model.manifest
        kind = (type(failed.error), manifest.name, manifest.version, _raised_at(failed.error))
        kinds.setdefault(kind, []).append(failed)
    yield from kinds.values()


def _raised_at(error: BaseException) -> tuple[str, int] | None:
    found = error.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    return None if found is None else (found.tb_frame.f_code.co_filename, found.tb_lineno)


def _send(failed_runs: Sequence[FailedRun]) -> None:
    admitted = failed_runs[0].admitted
    claimed, manifest = admitted.claimed, admitted.model.manifest
    job = claimed.job
    with sentry_sdk.new_scope() as scope:
        scope.set_tag("headrace.model", manifest.name)
        scope.set_tag("headrace.version", manifest.version)
        scope.set_tag("headrace.job", job.id)
        scope.set_tag("headrace.attempt", str(len(claimed.attempts) + 1))
        _name([failed.admitted.claimed.job.id for failed in failed_runs])
        scope.fingerprint = ["{{ default }}", manifest.name, manifest.version]

        def strike(event: Event, hint: Hint) -> Event:  # noqa: ARG001  # Sentry's signature
            for value in event.get("exception", {}).get("values", []):
                value["value"] = redact(str(value.get("value") or ""), job.instances)
            return event

        scope.add_event_processor(strike)
        sentry_sdk.capture_exception(failed_runs[0].error)


def _given_up(letters: Sequence[tuple[DeadLetter, bytes]], told: set[str]) -> Iterator[list[DeadLetter]]:
    """The letters of jobs that were given up without an error, together where they are alike."""
    kinds: dict[Any, list[DeadLetter]] = {}
    for letter, _ in letters:
        if letter.reason in _GIVEN_UP and letter.id not in told:
            kinds.setdefault((letter.model, letter.version, letter.reason, letter.error), []).append(letter)
    yield from kinds.values()


def _say_given_up(letters: Sequence[DeadLetter]) -> None:
    first = letters[0]
    with sentry_sdk.new_scope() as scope:
        scope.set_tag("headrace.model", first.model)
        scope.set_tag("headrace.version", first.version)
        scope.set_tag("headrace.job", first.id)
        scope.set_tag("headrace.attempt", str(len(first.attempts)))
        scope.set_tag("headrace.reason", first.reason)
        _name([letter.id for letter in letters])
        scope.fingerprint = ["headrace given up", str(first.model), first.reason]
        sentry_sdk.capture_message(f"jobs of {first.model} were given up: {first.reason}", level="error")


def _name(jobs: Sequence[str]) -> None:
    sentry_sdk.get_current_scope().set_context("headrace", {"jobs": len(jobs), "ids": list(jobs[:_NAMED])})
