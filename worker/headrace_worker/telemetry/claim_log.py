"""The log of claims: a line for a lost lease, malformed messages, retries, and each group of failed jobs.

A line for jobs that failed or will be retried says why. If their messages differ, it has that of the first job.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.text import plural
from headrace.wire.queues import is_bulk_queue
from headrace_worker.failures import describe_cause, locate_error, summarise

if TYPE_CHECKING:
    from headrace.wire.dead_letter import DeadLetter
    from headrace_worker.execution.claimed_job import FailedRun
    from headrace_worker.execution.report import ClaimReport

log = logging.getLogger("headrace.claims")

#: Job ids that a line lists at most.
_MAX_IDS = 10


class ClaimLog:
    """A listener that logs what went wrong in a claim. Jobs that failed in the same way share a line."""

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Log the claim."""
        queue = report.claim.lease.queue
        fields: dict[str, Any] = {"queue": queue, "claim": report.claim.lease.name}
        if report.published is None:
            log.warning(
                "the lease of %s of %s was lost and the outcomes were refused; another worker runs the jobs",
                plural(len(report.parsed.jobs), "job"),
                queue,
                extra=fields,
            )
            return
        if malformed := report.parsed.malformed:
            log.error(
                "moved %s of %s to the dead letters: malformed, no job can be read; see `headrace dead list`",
                plural(len(malformed), "message"),
                queue,
                extra=fields,
            )
        if retried := report.decisions.retried:
            causes = {type(failed.error).__name__: failed for failed in reversed(retried)}
            ids = _id_fields([failed.admitted.claimed.job.id for failed in retried])
            log.warning(
                "%s of %s will run again after %s",
                plural(len(retried), "job"),
                queue,
                "; ".join(_describe_run(causes[name], queue) for name in sorted(causes)),
                extra=fields | ids,
            )
        published = {outcome.job for outcome in report.published}
        code_lines = {
            failed.admitted.claimed.job.id: locate_error(failed.error) for failed in report.decisions.model_errors
        }
        for letters in _group(
            [letter for letter, _ in report.decisions.letters if letter.id in published], code_lines
        ):
            first = letters[0]
            log.warning(
                "%s of %s failed (%s): %s",
                plural(len(letters), "job"),
                queue,
                first.reason,
                summarise(first.error, _loggable_message(first), code_lines.get(first.id)),
                extra=fields
                | _id_fields([letter.id for letter in letters])
                | {
                    "model": first.model,
                    "version": first.version,
                    "attempt": len(first.attempts) + 1,
                    "reason": first.reason,
                    "error": first.error,
                },
            )
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "published %s of %s, %.1f ms after the claim was opened",
                plural(len(report.published), "outcome"),
                queue,
                (report.published_at - report.started_at) * 1000,
                extra=fields,
            )


def _id_fields(jobs: list[str]) -> dict[str, Any]:
    return {"job": jobs[0]} if len(jobs) == 1 else {"jobs": jobs[:_MAX_IDS], "count": len(jobs)}


def _describe_run(failed: FailedRun, queue: str) -> str:
    if is_bulk_queue(queue):
        return type(failed.error).__name__
    return describe_cause(failed.error, failed.admitted.claimed.job.instances)


def _loggable_message(letter: DeadLetter) -> str:
    """Return the message of a dead letter for the log.

    Values are removed from it by the instances of the job. A bulk job has none: its rows are in a file, and an
    error of a library may quote them.
    """
    return "" if is_bulk_queue(letter.queue) and not letter.module.startswith("headrace") else letter.message


def _group(letters: list[DeadLetter], code_lines: Mapping[str, str | None]) -> list[list[DeadLetter]]:
    """Group the dead letters of a claim by version, reason, error, its line of code, and number of attempts."""
    groups: dict[Any, list[DeadLetter]] = {}
    for letter in letters:
        key = (
            letter.model,
            letter.version,
            letter.reason,
            letter.error,
            code_lines.get(letter.id),
            len(letter.attempts),
        )
        groups.setdefault(key, []).append(letter)
    return list(groups.values())
