"""The final check: compare the confirmed jobs with their outcomes. Pure; the arena collects the evidence."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tests.chaos.jobs import is_right
from tests.chaos.ledger import LedgerContents

#: Seconds over the lease in which a lost worker's jobs have run elsewhere, and from Redis's return to an outcome.
OVER_LEASE, RESUMES_WITHIN = 2.0, 5.0
#: Seconds a clock may be read too early or late.
_SLACK = 0.05


class Run(msgspec.Struct, frozen=True):
    """A run as the model wrote it down: the process, when (monotonic), and the job."""

    pid: int
    started_at: float
    job: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The observations at the end of a scenario."""

    ledgers: LedgerContents
    #: Job id -> the outcome as stored.
    stored: Mapping[str, bytes]
    #: Job id -> when each announcement came.
    published: Mapping[str, Sequence[float]]
    runs: Sequence[Run]
    #: Writes of a result beyond the first of its job, by the append-only file.
    stored_twice: int
    #: Ids of dead letters; None where the system has none.
    dead: frozenset[str] | None
    #: Ids still in some list, hash or sorted set.
    still_there: frozenset[str]
    leftovers: Sequence[str]
    #: Seconds from a kill to the outcome of the last job the victim held.
    recovery: Sequence[float]
    #: Seconds from the moment Redis was back to the next outcome.
    resumed: Sequence[float]
    lease: float
    #: Jobs that may be lost, as nothing was promised of them beyond this Redis.
    may_lose: frozenset[str] = frozenset()
    #: Whether outcomes may be published again, as Redis itself lost the first.
    may_repeat: bool = False


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table."""

    confirmed: int
    succeeded: int
    dead: int
    cancelled: int
    expired: int
    raised: int
    #: Confirmed, no outcome, and nowhere in Redis; and those still there.
    lost: int
    stuck: int
    #: Jobs that ran more than once, and outcomes published beyond the first.
    ran_again: int
    twice: int
    recovery: list[float]
    resumed: list[float]
    #: Dead letters by reason.
    reasons: dict[str, int]
    #: What breaks a promise, in words. None: all held.
    broken: list[str]


def judge(evidence: Evidence) -> Verdict:
    """Count the outcomes of the jobs, and list the broken promises."""
    ledgers = evidence.ledgers
    ends = {job: _end(raw) for job, raw in evidence.stored.items()}
    confirmed = {job: ends.get(job) for job in ledgers.confirmed}
    without = {job for job, end in confirmed.items() if end is None}
    lost = without - evidence.still_there
    counts = Counter(end[0] for end in confirmed.values() if end is not None)
    reasons = Counter(end[1].get("reason", "failed") for end in ends.values() if end and end[0] == "dead")
    runs = Counter(run.job for run in evidence.runs)
    twice = max(evidence.stored_twice, sum(len(times) - 1 for times in evidence.published.values()))

    broken = [f"{word}: {format_jobs(jobs)}" for word, jobs in find_wrong_outcomes(evidence, ends).items() if jobs]
    if bad := lost - evidence.may_lose:
        broken.append(f"lost: {format_jobs(bad)}")
    if stuck := without & evidence.still_there:
        broken.append(f"without an outcome: {format_jobs(stuck)}")
    if twice and not evidence.may_repeat:
        broken.append(f"{twice} outcomes published twice")
    if evidence.leftovers:
        broken.append(f"keys left: {format_jobs(evidence.leftovers)}")
    if evidence.recovery and (late := percentile(evidence.recovery, 99)) > evidence.lease + OVER_LEASE:
        broken.append(f"recovery p99 {late:.1f} s, more than the lease of {evidence.lease:g} s and 2 s")
    if evidence.resumed and max(evidence.resumed) > RESUMES_WITHIN:
        broken.append(f"work went on only after {max(evidence.resumed):.1f} s")
    return Verdict(
        confirmed=len(confirmed),
        succeeded=counts["success"],
        dead=counts["dead"],
        cancelled=counts["cancelled"],
        expired=counts["expired"],
        raised=sum(ledgers.raised.values()),
        lost=len(lost),
        stuck=len(without & evidence.still_there),
        ran_again=sum(count > 1 for count in runs.values()),
        twice=twice,
        recovery=sorted(evidence.recovery),
        resumed=sorted(evidence.resumed),
        reasons=dict(reasons),
        broken=broken,
    )


def find_wrong_outcomes(
    evidence: Evidence, ends: Mapping[str, tuple[str, dict[str, Any]] | None]
) -> dict[str, set[str]]:
    """Jobs whose outcome is not what it should be, by what is wrong."""
    submitted = evidence.ledgers.submitted
    wrong: dict[str, set[str]] = {
        "an outcome nobody asked for": {job for job in ends if job not in submitted},
        "no outcome that can be read": {job for job, end in ends.items() if end is None},
        "another job's answer": {
            job
            for job, end in ends.items()
            if end and end[0] == "success" and not is_right(job, end[1]["result"].get("predictions", []))
        },
        "cancelled and yet another outcome": {
            job for job in evidence.ledgers.cancelled if (end := ends.get(job)) and end[0] != "cancelled"
        },
        "expired too early": {
            job
            for job, end in ends.items()
            if end
            and end[0] == "expired"
            and job in submitted
            and not _is_over(evidence, job, submitted[job].expires)
        },
    }
    began: dict[str, float] = {}
    for run in evidence.runs:
        began.setdefault(run.job, run.started_at)
    wrong["run before its time"] = {
        job
        for job, line in submitted.items()
        if job in began and began[job] < line.written_at + line.delay - _SLACK
    }
    if evidence.dead is not None:
        failed = {job for job, end in ends.items() if end and end[0] == "dead"}
        wrong["failed and no dead letter"] = failed - evidence.dead
        wrong["a dead letter and not failed"] = (set(evidence.dead) & submitted.keys()) - failed
    return wrong


def _is_over(evidence: Evidence, job: str, expires: float) -> bool:
    if not expires:
        return False
    published = evidence.published.get(job)
    return not published or published[0] - evidence.ledgers.submitted[job].written_at >= expires - _SLACK


def _end(raw: bytes) -> tuple[str, dict[str, Any]] | None:
    """Decode a stored outcome: its kind, and the whole of it; None for what is no outcome."""
    try:
        stored: dict[str, Any] = json.loads(raw)
        status, result = stored["status"], stored["result"]
    except (ValueError, KeyError, TypeError):
        return None
    if status == "SUCCESS":
        return "success", stored
    if status == "FAILURE":
        return "dead", stored
    if status == "REVOKED":
        return ("expired" if "expired" in json.dumps(result) else "cancelled"), stored
    return None


def format_jobs(jobs: set[str] | Sequence[str]) -> str:
    first = ", ".join(sorted(jobs)[:5])
    return f"{len(jobs)} ({first}{', ...' if len(jobs) > 5 else ''})"


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent are not above, by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
