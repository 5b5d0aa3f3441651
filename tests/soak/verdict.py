"""The verdict of a soak: slopes of memory and descriptors, and whole sets of job ids. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from tests.chaos.check import MAX_RESUME_SECONDS, RECOVERY_MARGIN_SECONDS, format_jobs, percentile

#: Growth that counts as a leak, per hour: MiB of memory, and file descriptors.
MAX_MEMORY_SLOPE, MAX_DESCRIPTOR_SLOPE = 8.0, 4.0
#: The shortest observed time of a kind of process, in seconds after the warm-up, from which a slope is judged.
MIN_OBSERVED_SECONDS = 300.0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a process: its kind, its life (one id for each process), monotonic time and sizes."""

    kind: str
    life: str
    at_second: float
    rss_mib: float
    descriptors: int
    #: The proportional share of memory; for Redis, the `used_memory` that it reports.
    other_mib: float = 0.0


class JobRecord(msgspec.Struct, kw_only=True):
    """The client's record of a job. Times are monotonic seconds."""

    submitted_at: float
    #: True if it came over HTTP.
    is_http: bool = False
    #: The start of the submit that was confirmed; None while none was.
    sent_at: float | None = None
    delay: float = 0.0
    priority: int = 0
    #: Success, failure, cancelled, expired or wrong; empty while the client has none.
    outcome: str = ""
    received_at: float = 0.0


class SoakEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The observations of a soak."""

    jobs: Mapping[str, JobRecord]
    #: The monotonic times at which outcomes were published, by job id.
    published: Mapping[str, Sequence[float]]
    #: Writes of outcomes in the append-only file, beyond the first of each job.
    repeated_writes: int
    samples: Sequence[Sample]
    #: Seconds of a process's life that no slope counts, by kind; `""` is the default.
    warm_up: Mapping[str, float]
    #: Monotonic times from the kill of Redis to its first reply.
    outages: Sequence[tuple[float, float]]
    lease: float
    #: Processes that ended although nobody killed them.
    unexpected_ends: Sequence[str] = ()


class Slope(msgspec.Struct, frozen=True, kw_only=True):
    """The growth of one kind of process, over all its lives, per hour, with standard errors."""

    kind: str
    lives: int
    hours: float
    max_rss_mib: float
    max_descriptors: int
    rss: float
    rss_error: float
    descriptors: float
    descriptors_error: float
    other: float
    other_error: float
    #: False if the observed time was too short to judge.
    is_judged: bool


class SoakResult(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a soak, its slopes, and its broken promises."""

    submitted: int
    confirmed: int
    over_http: int
    delayed: int
    with_priority: int
    outcomes: dict[str, int]
    lost: int
    published_twice: int
    #: Age in seconds of jobs that succeeded, from the submit (or the end of the delay) to the publication:
    #: p50, p99 and max.
    age: list[float]
    #: The same from the publication to the moment in which the client had the outcome.
    delivery: list[float]
    #: The largest age beyond what Redis's outages explain, and the promise.
    oldest: float
    promised_age: float
    slopes: list[Slope]
    broken_promises: list[str]
    #: Broken promises of seconds, which a busy machine may break.
    missed_deadlines: list[str]


def judge(evidence: SoakEvidence) -> SoakResult:
    """Compare the sets of job ids, compute ages and slopes, and list the broken promises."""
    jobs, published = evidence.jobs, evidence.published
    confirmed = {job for job, record in jobs.items() if record.sent_at is not None}
    received = {job for job, record in jobs.items() if record.outcome}
    lost = confirmed - received - published.keys()
    twice = max(evidence.repeated_writes, sum(len(times) - 1 for times in published.values()))
    ages = find_ages(evidence)
    promised = evidence.lease + RECOVERY_MARGIN_SECONDS
    wrong_sets = {
        "lost": lost,
        "published, but not received by the client": (confirmed & published.keys()) - received,
        "not confirmed until the end": jobs.keys() - confirmed,
        "an outcome of a job that was not submitted": published.keys() - jobs.keys(),
        "a wrong outcome": {job for job, record in jobs.items() if record.outcome == "wrong"},
    }
    broken = [f"{description}: {format_jobs(members)}" for description, members in wrong_sets.items() if members]
    if twice:
        broken.append(f"{twice} outcomes published twice")
    broken += [f"ended by itself: {name}" for name in evidence.unexpected_ends]
    slopes = find_slopes(evidence.samples, evidence.warm_up)
    broken += [description for slope in slopes for description in describe_leaks(slope)]
    late = {job: excess for job, (_, excess) in ages.items() if excess > promised}
    missed = (
        [f"older than {promised:g} s: {format_jobs(set(late))}, up to {max(late.values()):.1f} s"] if late else []
    )
    return SoakResult(
        submitted=len(jobs),
        confirmed=len(confirmed),
        over_http=sum(jobs[job].is_http for job in confirmed),
        delayed=sum(jobs[job].delay > 0 for job in confirmed),
        with_priority=sum(jobs[job].priority > 0 for job in confirmed),
        outcomes=dict(Counter(jobs[job].outcome for job in sorted(received))),
        lost=len(lost),
        published_twice=twice,
        age=_percentiles([age for age, _ in ages.values()]),
        delivery=_percentiles(
            [max(0.0, jobs[job].received_at - published[job][0]) for job in received & published.keys()]
        ),
        oldest=max((excess for _, excess in ages.values()), default=0.0),
        promised_age=promised,
        slopes=slopes,
        broken_promises=broken,
        missed_deadlines=missed,
    )


def find_ages(evidence: SoakEvidence) -> dict[str, tuple[float, float]]:
    """Return the age of each job that succeeded, and the same without the outages of Redis that it met.

    An outage counts until work must continue after it (`MAX_RESUME_SECONDS`).
    """
    ages = {}
    for job, record in evidence.jobs.items():
        if record.outcome != "success" or record.sent_at is None:
            continue
        due = record.sent_at + record.delay
        times = evidence.published.get(job)
        ended_at = min(times[0], record.received_at) if times else record.received_at
        age = max(0.0, ended_at - due)
        away = sum(
            max(0.0, min(ended_at, answered_at + MAX_RESUME_SECONDS) - max(due, killed_at))
            for killed_at, answered_at in evidence.outages
        )
        ages[job] = age, age - away
    return ages


def find_slopes(samples: Sequence[Sample], warm_up: Mapping[str, float]) -> list[Slope]:
    """Return the slope of each kind of process: one slope for all lives, and for each life its own level."""
    lives: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        lives.setdefault(sample.kind, {}).setdefault(sample.life, []).append(sample)
    slopes = []
    for kind, by_life in lives.items():
        seconds = warm_up.get(kind, warm_up[""])
        warm = [
            [sample for sample in life if sample.at_second >= life[0].at_second + seconds]
            for life in by_life.values()
        ]
        warm = [life for life in warm if len(life) > 2]
        observed = sum(life[-1].at_second - life[0].at_second for life in warm)
        rss, rss_error = fit_common_slope([[(s.at_second, s.rss_mib) for s in life] for life in warm])
        fds, fds_error = fit_common_slope([[(s.at_second, s.descriptors) for s in life] for life in warm])
        other, other_error = fit_common_slope([[(s.at_second, s.other_mib) for s in life] for life in warm])
        slopes.append(
            Slope(
                kind=kind,
                lives=len(by_life),
                hours=observed / 3600,
                max_rss_mib=max(s.rss_mib for life in by_life.values() for s in life),
                max_descriptors=max(s.descriptors for life in by_life.values() for s in life),
                rss=rss,
                rss_error=rss_error,
                descriptors=fds,
                descriptors_error=fds_error,
                other=other,
                other_error=other_error,
                is_judged=observed >= MIN_OBSERVED_SECONDS,
            )
        )
    return slopes


def fit_common_slope(lives: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float]:
    """Return the least-squares slope per hour that series of (second, value) share, and its standard error.

    Neighbouring samples resemble each other, so that the error is widened by their correlation.
    """
    xx = xy = residual = neighbours = 0.0
    count, centred = 0, []
    for life in lives:
        mean_x = sum(x for x, _ in life) / len(life)
        mean_y = sum(y for _, y in life) / len(life)
        centred.append([((x - mean_x) / 3600, y - mean_y) for x, y in life])
    for series in centred:
        xx += sum(x * x for x, _ in series)
        xy += sum(x * y for x, y in series)
        count += len(series)
    if not xx:
        return 0.0, 0.0
    slope = xy / xx
    for series in centred:
        errors = [y - slope * x for x, y in series]
        residual += sum(error * error for error in errors)
        neighbours += sum(first * second for first, second in pairwise(errors))
    correlation = min(0.95, max(0.0, neighbours / residual)) if residual else 0.0
    freedom = max(1, count - len(centred) - 1)
    error = math.sqrt(residual / freedom / xx * (1 + correlation) / (1 - correlation))
    return slope, error


def describe_leaks(slope: Slope) -> list[str]:
    """Describe the growth of one kind of process that is above the limits by more than chance."""
    if not slope.is_judged:
        return []
    leaks = []
    if slope.rss - 2 * slope.rss_error > MAX_MEMORY_SLOPE:
        leaks.append(f"{slope.kind}: memory grows by {slope.rss:.1f} MiB an hour (+- {2 * slope.rss_error:.1f})")
    if slope.descriptors - 2 * slope.descriptors_error > MAX_DESCRIPTOR_SLOPE:
        growth = f"{slope.descriptors:.1f} an hour (+- {2 * slope.descriptors_error:.1f})"
        leaks.append(f"{slope.kind}: open file descriptors grow by {growth}")
    return leaks


def _percentiles(values: Sequence[float]) -> list[float]:
    return [percentile(values, percent) for percent in (50, 99, 100)] if values else []
