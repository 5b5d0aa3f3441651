"""The verdict of a soak reports planted leaks, lost jobs and late ones, and nothing else."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from tests.soak.kills import ROUND, plan_kills
from tests.soak.verdict import JobRecord, Sample, SoakEvidence, find_slopes, fit_common_slope, judge


def samples(growth: float = 0.0, descriptors: float = 0.0, lives: int = 1, minutes: int = 30) -> list[Sample]:
    """Return samples of a process with noise; it grows by MiB and by descriptors per hour from its start."""
    rng = random.Random(1)
    return [
        Sample(
            kind="worker",
            life=f"worker {life}",
            at_second=1000.0 * life + second,
            rss_mib=100 + 20 * life + growth * second / 3600 + rng.uniform(-1, 1),
            descriptors=round(30 + descriptors * second / 3600),
        )
        for life in range(lives)
        for second in range(0, 60 * minutes // lives, 10)
    ]


def record(**changes: Any) -> JobRecord:
    fields: dict[str, Any] = {"submitted_at": 10.0, "sent_at": 10.0, "outcome": "success", "received_at": 10.2}
    return JobRecord(**(fields | changes))


def evidence(**changes: Any) -> SoakEvidence:
    fields: dict[str, Any] = {
        "jobs": {"job-1": record()},
        "published": {"job-1": [10.1]},
        "repeated_writes": 0,
        "samples": samples(),
        "warm_up": {"": 60.0},
        "outages": [],
        "lease": 10.0,
    }
    return SoakEvidence(**(fields | changes))


def test_flat_noise_and_whole_sets_break_no_promise() -> None:
    result = judge(evidence())
    assert result.broken_promises == result.missed_deadlines == []
    assert result.age == pytest.approx([0.1] * 3)
    assert result.delivery == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("lives", [1, 3])
def test_a_planted_leak_of_memory_is_reported(lives: int) -> None:
    (broken,) = judge(evidence(samples=samples(growth=40, lives=lives))).broken_promises
    assert broken.startswith("worker: memory grows by ")
    (slope,) = find_slopes(samples(growth=40, lives=lives), {"": 60})
    assert slope.rss == pytest.approx(40, abs=5)
    assert slope.lives == lives


def test_a_planted_leak_of_descriptors_is_reported() -> None:
    (broken,) = judge(evidence(samples=samples(descriptors=30))).broken_promises
    assert broken.startswith("worker: open file descriptors grow by ")


def test_other_levels_of_each_life_are_no_growth() -> None:
    assert judge(evidence(samples=samples(lives=4))).broken_promises == []


def test_growth_within_the_warm_up_is_no_leak() -> None:
    warming = [
        msgspec.structs.replace(sample, rss_mib=50 + sample.at_second) if sample.at_second < 60 else sample
        for sample in samples()
    ]
    assert judge(evidence(samples=warming)).broken_promises == []


def test_a_short_time_is_not_judged() -> None:
    result = judge(evidence(samples=samples(growth=500, minutes=4)))
    assert not result.slopes[0].is_judged
    assert result.broken_promises == []


def test_series_without_a_length_have_no_slope() -> None:
    assert fit_common_slope([]) == (0.0, 0.0)
    assert fit_common_slope([[(1.0, 5.0), (1.0, 7.0)]]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jobs": {"job-1": record(outcome="")}, "published": {}}, "lost: 1 (job-1)"),
        ({"jobs": {"job-1": record(outcome="")}}, "published, but not received by the client: 1 (job-1)"),
        ({"jobs": {"job-1": record(sent_at=None, outcome="")}}, "not confirmed until the end: 1 (job-1)"),
        ({"jobs": {}}, "an outcome of a job that was not submitted: 1 (job-1)"),
        ({"jobs": {"job-1": record(outcome="wrong")}}, "a wrong outcome: 1 (job-1)"),
        ({"published": {"job-1": [10.1, 11.0]}}, "1 outcomes published twice"),
        ({"repeated_writes": 2}, "2 outcomes published twice"),
        ({"unexpected_ends": ["gateway: code 1, error"]}, "ended by itself: gateway: code 1, error"),
    ],
)
def test_each_wrong_set_is_reported(changes: dict[str, Any], message: str) -> None:
    assert judge(evidence(**changes)).broken_promises == [message]


def test_a_job_that_is_too_old_is_reported() -> None:
    late = {"jobs": {"job-1": record(received_at=23.0)}, "published": {"job-1": [22.9]}}
    result = judge(evidence(**late))
    assert result.missed_deadlines == ["older than 12 s: 1 (job-1), up to 12.9 s"]
    assert result.broken_promises == []


def test_an_outage_of_redis_and_a_delay_excuse_an_age() -> None:
    late = {"jobs": {"job-1": record(received_at=23.0)}, "published": {"job-1": [22.9]}}
    assert judge(evidence(**late, outages=[(12.0, 13.0)])).missed_deadlines == []
    assert judge(evidence(**late, outages=[(30.0, 40.0)])).missed_deadlines != []
    delayed = {"job-1": record(received_at=23.0, delay=2.0)}
    assert judge(evidence(jobs=delayed, published={"job-1": [22.9]})).missed_deadlines == []


def test_an_outcome_published_while_nobody_listened_counts_when_it_is_received() -> None:
    result = judge(evidence(published={}))
    assert result.broken_promises == []
    assert result.age == pytest.approx([0.2] * 3)


def test_a_seed_repeats_the_kills_and_every_round_has_each_victim() -> None:
    kills = plan_kills(1, 3600, 60)
    assert kills == plan_kills(1, 3600, 60) != plan_kills(2, 3600, 60)
    assert len(kills) == 59
    assert {kill.victim for kill in kills[: sum(ROUND.values())]} == set(ROUND)
    assert all(first.second < second.second for first, second in pairwise(kills))
    assert kills[-1].second < 3600 - 40
