"""When a canary ends by itself."""

from __future__ import annotations

import pytest

from headrace_worker.rollout.canary import CanaryLimits, judge
from headrace_worker.rollout.version_stats import VersionStats

LIMITS = CanaryLimits(min_jobs=100, max_extra_failures=0.02, max_slowdown=2.0)


def counted(jobs: int, *, failed: int = 0, seconds: float = 0.01) -> VersionStats:
    one = VersionStats(succeeded=jobs - failed, failed=failed)
    one.add_duration(seconds, jobs)
    return one


@pytest.mark.parametrize(
    ("canary", "production"),
    [
        (counted(99, failed=99), counted(1_000)),
        (counted(100, failed=2), counted(1_000)),
        (counted(100, failed=12), counted(1_000, failed=100)),
        (counted(100, seconds=0.018), counted(1_000)),
        (counted(100, seconds=9.0), counted(99)),
        (counted(100, seconds=9.0), VersionStats()),
    ],
    ids=[
        "too few jobs",
        "few failures",
        "as production",
        "not much slower",
        "production is idle",
        "no production",
    ],
)
def test_a_canary_goes_on(canary: VersionStats, production: VersionStats):
    assert judge(canary, production, LIMITS) is None


@pytest.mark.parametrize(
    ("canary", "production", "said"),
    [
        (counted(100, failed=3), counted(1_000), "3.0% of its 100 jobs failed, of production's 0.0%"),
        (
            counted(100, failed=13),
            counted(1_000, failed=100),
            "13.0% of its 100 jobs failed, of production's 10.0%",
        ),
        (counted(100, failed=3), VersionStats(), "3.0% of its 100 jobs failed"),
        (counted(1_000, seconds=0.05), counted(1_000), "its p99 is "),
    ],
)
def test_a_canary_ends_and_says_why(canary: VersionStats, production: VersionStats, said: str):
    why = judge(canary, production, LIMITS)
    assert why is not None
    assert why.startswith(said)
