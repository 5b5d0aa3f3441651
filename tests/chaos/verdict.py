"""The master check: what was confirmed against what became of it. Pure; the arena collects what it is given."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tests.chaos.jobs import is_right
from tests.chaos.ledger import Books

#: Seconds over the lease in which a lost worker's jobs have run elsewhere, and from Redis's return to an outcome.
OVER_LEASE, RESUMES_WITHIN = 2.0, 5.0
#: Seconds a clock may be read too early or late.
_SLACK = 0.05


class Run(msgspec.Struct, frozen=True):
    """A run as the model wrote it down: the process, when (monotonic), and the job."""

    pid: int
    at: float
    job: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was found when all was over."""

    books: Books
    #: Job id -> the outcome as stored.
    stored: Mapping[str, bytes]
    #: Job id -> when each announcement came.
    heard: Mapping[str, Sequence[float]]
    runs: Sequence[Run]
    #: Writes of a result beyond the first of its job, by the append-only file.
    stored_twice: int
    #: Ids of dead letters; None where the system has none.
    dead: frozenset[str] | None
    #: Ids still in some list, hash or sorted set.
    still_there: frozenset[str]
    leftovers: Sequence[str]
    #: Seconds from a blow to the outcome of the last job the victim held.
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


def judge(found: Evidence) -> Verdict:
    """What became of the jobs, and whether all promises held."""
    books = found.books
    ends = {job: _end(raw) for job, raw in found.stored.items()}
    confirmed = {job: ends.get(job) for job in books.confirmed}
    without = {job for job, end in confirmed.items() if end is None}
    lost = without - found.still_there
    counts = Counter(end[0] for end in confirmed.values() if end is not None)
    reasons = Counter(end[1].get("reason", "failed") for end in ends.values() if end and end[0] == "dead")
    runs = Counter(run.job for run in found.runs)
    twice = max(found.stored_twice, sum(len(times) - 1 for times in found.heard.values()))

    broken = [f"{word}: {_some(jobs)}" for word, jobs in _wrong(found, ends).items() if jobs]
    if bad := lost - found.may_lose:
        broken.append(f"lost: {_some(bad)}")
    if stuck := without & found.still_there:
        broken.append(f"without an outcome: {_some(stuck)}")
    if twice and not found.may_repeat:
        broken.append(f"{twice} outcomes published twice")
    if found.leftovers:
        broken.append(f"keys left: {_some(found.leftovers)}")
    if found.recovery and (late := percentile(found.recovery, 99)) > found.lease + OVER_LEASE:
        broken.append(f"recovery p99 {late:.1f} s, more than the lease of {found.lease:g} s and 2 s")
    if found.resumed and max(found.resumed) > RESUMES_WITHIN:
        broken.append(f"work went on only after {max(found.resumed):.1f} s")
    return Verdict(
        confirmed=len(confirmed),
        succeeded=counts["success"],
        dead=counts["dead"],
        cancelled=counts["cancelled"],
        expired=counts["expired"],
        raised=sum(books.raised.values()),
        lost=len(lost),
        stuck=len(without & found.still_there),
        ran_again=sum(count > 1 for count in runs.values()),
        twice=twice,
        recovery=sorted(found.recovery),
        resumed=sorted(found.resumed),
        reasons=dict(reasons),
        broken=broken,
    )


def _wrong(found: Evidence, ends: Mapping[str, tuple[str, dict[str, Any]] | None]) -> dict[str, set[str]]:
    """Jobs whose outcome is not what it should be, by what is wrong."""
    asked = found.books.asked
    wrong: dict[str, set[str]] = {
        "an outcome nobody asked for": {job for job in ends if job not in asked},
        "no outcome that can be read": {job for job, end in ends.items() if end is None},
        "another job's answer": {
            job
            for job, end in ends.items()
            if end and end[0] == "success" and not is_right(job, end[1]["result"].get("predictions", []))
        },
        "cancelled and yet another outcome": {
            job for job in found.books.cancelled if (end := ends.get(job)) and end[0] != "cancelled"
        },
        "expired too early": {
            job
            for job, end in ends.items()
            if end and end[0] == "expired" and job in asked and not _is_over(found, job, asked[job].expires)
        },
    }
    began: dict[str, float] = {}
    for run in found.runs:
        began.setdefault(run.job, run.at)
    wrong["run before its time"] = {
        job for job, line in asked.items() if job in began and began[job] < line.at + line.delay - _SLACK
    }
    if found.dead is not None:
        failed = {job for job, end in ends.items() if end and end[0] == "dead"}
        wrong["failed and no dead letter"] = failed - found.dead
        wrong["a dead letter and not failed"] = (set(found.dead) & asked.keys()) - failed
    return wrong


def _is_over(found: Evidence, job: str, expires: float) -> bool:
    if not expires:
        return False
    heard = found.heard.get(job)
    return not heard or heard[0] - found.books.asked[job].at >= expires - _SLACK


def _end(raw: bytes) -> tuple[str, dict[str, Any]] | None:
    """How a job ended by what is stored, and all of it."""
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


def _some(jobs: set[str] | Sequence[str]) -> str:
    first = ", ".join(sorted(jobs)[:5])
    return f"{len(jobs)} ({first}{', ...' if len(jobs) > 5 else ''})"


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent are not above, by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
