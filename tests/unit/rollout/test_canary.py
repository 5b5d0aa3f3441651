"""The limits at which a canary is ended."""

from __future__ import annotations

import pytest

from headrace_worker.rollout.canary import CanaryLimits, compare, judge
from headrace_worker.rollout.version_stats import VersionStats

LIMITS = CanaryLimits(min_jobs=100, max_extra_failures=0.02, max_slowdown=2.0)


def stats(jobs: int, *, failed: int = 0, seconds: float = 0.01) -> VersionStats:
    result = VersionStats(succeeded=jobs - failed, failed=failed)
    result.add_duration(seconds, jobs)
    return result


@pytest.mark.parametrize(
    ("canary", "production"),
    [
        (stats(99, failed=99), stats(1_000)),
        (stats(100, failed=2), stats(1_000)),
        (stats(100, failed=12), stats(1_000, failed=100)),
        (stats(100, seconds=0.018), stats(1_000)),
        (stats(100, seconds=9.0), stats(99)),
        (stats(100, seconds=9.0), VersionStats()),
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
def test_a_canary_continues(canary: VersionStats, production: VersionStats):
    assert judge(canary, production, LIMITS) is None


@pytest.mark.parametrize(
    ("canary", "production", "expected"),
    [
        (stats(100, failed=3), stats(1_000), "3.0% of its 100 jobs failed, 0.0% of production's"),
        (
            stats(100, failed=13),
            stats(1_000, failed=100),
            "13.0% of its 100 jobs failed, 10.0% of production's",
        ),
        (stats(100, failed=3), VersionStats(), "3.0% of its 100 jobs failed"),
        (stats(1_000, seconds=0.05), stats(1_000), "its p99 is "),
    ],
)
def test_a_canary_ends_with_a_reason(canary: VersionStats, production: VersionStats, expected: str):
    reason = judge(canary, production, LIMITS)
    assert reason is not None
    assert reason.startswith(expected)


@pytest.mark.parametrize(
    ("tried", "production", "verdict"),
    [
        (stats(12), stats(1_000), "too few jobs: 12 of 100"),
        (stats(100), stats(1_000), "good"),
        (stats(100), stats(7), "good: by its failures alone, as production ran 7 of 100 jobs"),
        (stats(100, failed=12), stats(1_000), "failed more: 12.0% of its 100 jobs failed, 0.0% of production's"),
    ],
)
def test_the_verdict_is_told_in_words(tried: VersionStats, production: VersionStats, verdict: str):
    assert str(compare(tried, production, LIMITS)) == verdict


def test_a_slower_version_and_a_shadow_that_differs_are_told_with_their_numbers():
    assert str(compare(stats(100, seconds=0.5), stats(1_000), LIMITS)).startswith("slower: its p99 is ")
    shadow = stats(400)
    shadow.compared, shadow.differing = 400, 7
    verdict = compare(shadow, stats(1_000), LIMITS)
    assert (str(verdict), verdict.is_bad) == ("differs: 7 of 400 predictions", False)
