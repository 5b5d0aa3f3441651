"""What the log tells of claims: what went otherwise than it should, a line for each such fact."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.wire.dead_letter import DeadLetter
    from headrace_worker.execution.report import ClaimReport

log = logging.getLogger("headrace.claims")

#: Ids of jobs that a line names.
_NAMED = 10


class ClaimLog:
    """Writes a line for each such thing. Jobs of a claim that failed alike are one."""

    def on_claim_finished(self, report: ClaimReport) -> None:
        """A claim has ended."""
        queue = report.claim.lease.queue
        about: dict[str, Any] = {"queue": queue, "claim": report.claim.lease.name}
        if report.published is None:
            log.warning(
                "the lease of %d jobs of %s was lost; they run elsewhere",
                len(report.parsed.jobs),
                queue,
                extra=about,
            )
            return
        if malformed := report.parsed.malformed:
            log.error(
                "%d messages of %s are no jobs; they are dead letters now", len(malformed), queue, extra=about
            )
        if retried := report.decisions.retried:
            errors = sorted({type(failed.error).__name__ for failed in retried})
            named = _named([failed.admitted.claimed.job.id for failed in retried])
            log.warning(
                "%d jobs of %s run again, after %s", len(retried), queue, ", ".join(errors), extra=about | named
            )
        published = {outcome.job for outcome in report.published}
        for letters in _alike([letter for letter, _ in report.decisions.letters if letter.id in published]):
            first = letters[0]
            log.warning(
                "%d jobs of %s failed (%s): %s",
                len(letters),
                queue,
                first.reason,
                first.error,
                extra=about
                | _named([letter.id for letter in letters])
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
                "%d outcomes of %s published within %.1f ms",
                len(report.published),
                queue,
                (report.published_at - report.started_at) * 1000,
                extra=about,
            )


def _named(jobs: list[str]) -> dict[str, Any]:
    return {"job": jobs[0]} if len(jobs) == 1 else {"jobs": jobs[:_NAMED], "count": len(jobs)}


def _alike(letters: list[DeadLetter]) -> list[list[DeadLetter]]:
    kinds: dict[Any, list[DeadLetter]] = {}
    for one in letters:
        kind = (one.model, one.version, one.reason, one.error, len(one.attempts))
        kinds.setdefault(kind, []).append(one)
    return list(kinds.values())
