"""A finding: a difference between what is configured and what Headrace's guarantees need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

#: `critical`: jobs are deleted, or cannot be processed at all. `error`: a guarantee does not hold. `warning`: a
#: guarantee holds within a limit, which the finding names. `unknown`: it could not be checked.
Severity = Literal["critical", "error", "warning", "unknown"]
#: All severities, the worst first.
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
#: The severities that make `headrace doctor` exit with 1: a guarantee does not hold.
FAILING: tuple[Severity, ...] = ("critical", "error")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A setting or state that weakens or breaks a guarantee, with the way to correct it."""

    severity: Severity
    #: What was checked: a directive of redis.conf, a setting, a queue, or a version of a model.
    subject: str
    actual: str
    expected: str
    #: The consequence for jobs.
    reason: str
    #: The Redis command, shell command or other action that corrects it.
    fix: str

    def __str__(self) -> str:
        return f"{self.subject} is {self.actual}, should be {self.expected}: {self.reason}. Fix: {self.fix}"


def worst_severity(findings: Iterable[Finding]) -> Severity | None:
    """Return the worst severity among the findings, None without findings."""
    return min((finding.severity for finding in findings), key=SEVERITIES.index, default=None)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings sorted by severity, the worst first."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
