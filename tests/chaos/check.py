"""The final check: compare the confirmed jobs with their outcomes. Pure; `evidence` collects the data."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tests.chaos.jobs import are_predictions_of
from tests.chaos.ledger import LedgerContents

#: Seconds after the lease within which a lost worker's jobs must have run on another worker, and seconds from the
#: moment Redis answers again to the next outcome.
RECOVERY_MARGIN_SECONDS, MAX_RESUME_SECONDS = 2.0, 5.0
#: Seconds of tolerance between two readings of the clock.
_TOLERANCE_SECONDS = 0.05


class Run(msgspec.Struct, frozen=True):
    """A run that the model recorded: the process, the monotonic time, and the job."""

    pid: int
    started_at: float
    job: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The observations at the end of a scenario."""

    ledgers: LedgerContents
    #: The stored outcome, by job id.
    stored: Mapping[str, bytes]
    #: The monotonic times at which outcomes were published, by job id.
    published: Mapping[str, Sequence[float]]
    runs: Sequence[Run]
    #: Writes of outcomes in the append-only file, beyond the first of each job.
    repeated_writes: int
    #: Ids of dead letters; None if the system has no dead letters.
    dead: frozenset[str] | None
    #: Job ids that are still in a list, hash or sorted set.
    in_redis: frozenset[str]
    #: Keys that should not exist any more.
    leftovers: Sequence[str]
    #: Seconds to the outcome of the last job that a victim held, from its kill or from the last return of Redis.
    recovery: Sequence[float]
    #: Seconds from each time Redis answered again to the next outcome.
    resumed: Sequence[float]
    lease: float
    #: Confirmed jobs that may be lost together with their Redis.
    may_be_lost: frozenset[str] = frozenset()
    #: The most seconds by which the clock of Redis was ahead: jobs start and expire by that clock.
    clock_ahead: float = 0.0
    #: True if outcomes may be published again: Redis may lose the first, or failed jobs of a run are resumed.
    may_be_repeated: bool = False


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one scenario, and its broken promises."""

    confirmed: int
    succeeded: int
    dead: int
    cancelled: int
    expired: int
    raised: int
    #: Confirmed jobs without an outcome: those that are nowhere in Redis, and those that still are.
    lost: int
    unfinished: int
    #: Jobs that ran more than once, and outcomes published beyond the first of each job.
    ran_again: int
    published_twice: int
    recovery: list[float]
    resumed: list[float]
    #: Dead letters by reason.
    reasons: dict[str, int]
    #: A description of each; empty if all promises were kept.
    broken_promises: list[str]
    #: The same of promises of seconds, which a busy machine may break.
    missed_deadlines: list[str] = []


def check_promises(evidence: Evidence) -> CheckResult:
    """Count the outcomes of the jobs, and list the broken promises."""
    ledgers = evidence.ledgers
    outcomes = {job: _decode_outcome(raw) for job, raw in evidence.stored.items()}
    confirmed = {job: outcomes.get(job) for job in ledgers.confirmed}
    without_outcome = {job for job, outcome in confirmed.items() if outcome is None}
    lost, unfinished = without_outcome - evidence.in_redis, without_outcome & evidence.in_redis
    counts = Counter(outcome[0] for outcome in confirmed.values() if outcome is not None)
    failures = [outcome[1] for outcome in outcomes.values() if outcome and outcome[0] == "dead"]
    reasons = Counter(failure.get("reason", "failed") for failure in failures)
    runs = Counter(run.job for run in evidence.runs)
    published_twice = max(evidence.repeated_writes, sum(len(times) - 1 for times in evidence.published.values()))

    wrong = find_wrong_outcomes(evidence, outcomes)
    broken = [f"{description}: {format_jobs(jobs)}" for description, jobs in wrong.items() if jobs]
    if unexpected := lost - evidence.may_be_lost:
        broken.append(f"lost: {format_jobs(unexpected)}")
    if unfinished:
        broken.append(f"without an outcome: {format_jobs(unfinished)}")
    if published_twice and not evidence.may_be_repeated:
        broken.append(f"{published_twice} outcomes published twice")
    if evidence.leftovers:
        broken.append(f"keys left: {format_jobs(evidence.leftovers)}")
    return CheckResult(
        confirmed=len(confirmed),
        succeeded=counts["success"],
        dead=counts["dead"],
        cancelled=counts["cancelled"],
        expired=counts["expired"],
        raised=sum(ledgers.raised.values()),
        lost=len(lost),
        unfinished=len(unfinished),
        ran_again=sum(count > 1 for count in runs.values()),
        published_twice=published_twice,
        recovery=sorted(evidence.recovery),
        resumed=sorted(evidence.resumed),
        reasons=dict(reasons),
        broken_promises=broken,
        missed_deadlines=find_missed_deadlines(evidence),
    )


def find_missed_deadlines(evidence: Evidence) -> list[str]:
    """Describe the promises of seconds that were broken."""
    missed = []
    max_recovery = evidence.lease + RECOVERY_MARGIN_SECONDS
    if evidence.recovery and (p99 := percentile(evidence.recovery, 99)) > max_recovery:
        missed.append(f"recovery p99 {p99:.1f} s, more than the lease of {evidence.lease:g} s and 2 s")
    if evidence.resumed and max(evidence.resumed) > MAX_RESUME_SECONDS:
        missed.append(f"the next outcome took {max(evidence.resumed):.1f} s after Redis answered again")
    return missed


def find_wrong_outcomes(
    evidence: Evidence, outcomes: Mapping[str, tuple[str, dict[str, Any]] | None]
) -> dict[str, set[str]]:
    """Return the jobs with a wrong outcome, by a description of what is wrong."""
    submitted = evidence.ledgers.submitted
    wrong: dict[str, set[str]] = {
        "an outcome of a job that was not submitted": {job for job in outcomes if job not in submitted},
        "an outcome that cannot be read": {job for job, outcome in outcomes.items() if outcome is None},
        "predictions of another job": {
            job
            for job, outcome in outcomes.items()
            if outcome
            and outcome[0] == "success"
            and not are_predictions_of(job, outcome[1]["result"].get("predictions", []))
        },
        "cancelled, but with another outcome": {
            job
            for job in evidence.ledgers.cancelled
            if (outcome := outcomes.get(job)) and outcome[0] != "cancelled"
        },
        "expired too early": {
            job
            for job, outcome in outcomes.items()
            if outcome
            and outcome[0] == "expired"
            and job in submitted
            and not _has_expired(evidence, job, submitted[job].expires)
        },
    }
    first_start: dict[str, float] = {}
    for run in evidence.runs:
        first_start.setdefault(run.job, run.started_at)
    wrong["run before it was due"] = {
        job
        for job, line in submitted.items()
        if job in first_start
        and first_start[job] < line.written_at + line.delay - evidence.clock_ahead - _TOLERANCE_SECONDS
    }
    if evidence.dead is not None:
        failed = {job for job, outcome in outcomes.items() if outcome and outcome[0] == "dead"}
        wrong["failed without a dead letter"] = failed - evidence.dead
        wrong["a dead letter of a job that did not fail"] = (set(evidence.dead) & submitted.keys()) - failed
    return wrong


def _has_expired(evidence: Evidence, job: str, expires: float) -> bool:
    if not expires:
        return False
    published = evidence.published.get(job)
    earliest = evidence.ledgers.submitted[job].written_at + expires - evidence.clock_ahead - _TOLERANCE_SECONDS
    # A failover may lose the first outcome: the stored one is the last.
    return not published or published[-1] >= earliest


def _decode_outcome(raw: bytes) -> tuple[str, dict[str, Any]] | None:
    """Return the kind of a stored outcome and its fields; None if it cannot be read."""
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
    """Return the number of jobs and the first five."""
    first = ", ".join(sorted(jobs)[:5])
    return f"{len(jobs)} ({first}{', ...' if len(jobs) > 5 else ''})"


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of the values, by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
