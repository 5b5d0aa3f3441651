"""The log of jobs: a line as they end, as HTTP servers have one for each request. It holds no input and no output.

Jobs of a claim with the same version and state share a line. Failed and retried jobs are not among them: their
line is in the log of claims (`claim_log`), with the cause.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal, NamedTuple

from headrace.text import plural
from headrace.wire.outcome import Cancelled, Expired, Success

if TYPE_CHECKING:
    from headrace.wire.message import Job
    from headrace_worker.execution.report import ClaimReport

log = logging.getLogger("headrace.jobs")

#: The descriptor of standard error. Celery replaces `sys.stderr`.
_STDERR = 2
_STATES: dict[type, str] = {Cancelled: "cancelled", Expired: "expired"}


class _Group(NamedTuple):
    model: str
    version: str | None
    state: str

    @property
    def title(self) -> str:
        return f"{self.model}@{self.version}" if self.version else self.model


def is_wanted(setting: Literal["auto", "true", "false"]) -> bool:
    """Decide whether jobs are logged: `auto` is on a terminal, where a person watches."""
    return setting == "true" or (setting == "auto" and os.isatty(_STDERR))


class JobLog:
    """A listener that logs jobs as they end."""

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Log the jobs of a claim whose outcomes were published."""
        milliseconds = 1000 * (report.published_at - report.started_at)
        for group, jobs in _group(report).items():
            instances = sum(len(job.instances) for job in jobs)
            counts = plural(instances, "instance")
            if len(jobs) > 1:
                counts = f"{plural(len(jobs), 'job')}, {counts}"
            log.info(
                "%s: %s, %s, %.1f ms",
                group.title,
                counts,
                group.state,
                milliseconds,
                extra={
                    "model": group.model,
                    "version": group.version,
                    "state": group.state,
                    "job_count": len(jobs),
                    "instances": instances,
                    "duration_ms": round(milliseconds, 1),
                    "job": jobs[0].id,
                },
            )


def _group(report: ClaimReport) -> dict[_Group, list[Job]]:
    """Return the jobs that ended without an error, by version and state."""
    published = {outcome.job: outcome for outcome in report.published or ()}
    groups: dict[_Group, list[Job]] = {}
    for claimed in report.cancelled:
        groups.setdefault(_Group(claimed.job.model, claimed.job.version, "cancelled"), []).append(claimed.job)
    for result in (*report.results, *report.parsed.finished):
        job = result.claimed.job
        outcome = published.pop(job.id, None)
        if isinstance(outcome, Success):
            group = _Group(job.model, outcome.prediction.version or job.version, "success")
        elif state := _STATES.get(type(outcome)):
            group = _Group(job.model, job.version, state)
        else:
            continue
        groups.setdefault(group, []).append(job)
    return groups
