"""The statistics of a version: they are read back as written, and durations are exact to a bucket."""

from __future__ import annotations

import pytest

from headrace_worker.rollout.version_stats import VersionStats, bucket_of, decode_stats


def test_a_quantile_of_the_durations_is_exact_to_a_fifth():
    stats = VersionStats()
    stats.add_duration(0.001, 98)
    stats.add_duration(0.1, 2)
    assert stats.quantile_seconds(0.5) == pytest.approx(0.001, rel=0.2)
    assert stats.quantile_seconds(0.98) == pytest.approx(0.001, rel=0.2)
    assert stats.quantile_seconds(0.99) == pytest.approx(0.1, rel=0.2)
    assert stats.quantile_seconds(0.99) >= 0.1
    assert VersionStats().quantile_seconds(0.99) is None


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e-6, 0.01, 1.0, 1e9])
def test_every_duration_has_a_bucket(seconds: float):
    assert 0 <= bucket_of(seconds) <= 160


def test_statistics_are_read_from_both_forms_of_a_reply_and_unknown_fields_are_ignored():
    stored = {
        b"succeeded": b"98",
        b"failed": b"2",
        b"t40": b"100",
        b"difference_sum": b"0.25",
        b"largest_difference": b"0.2",
        b"new": b"7",
    }
    expected = VersionStats(
        succeeded=98, failed=2, jobs_by_bucket={40: 100}, difference_sum=0.25, largest_difference=0.2
    )
    assert decode_stats("churn@1", stored) == expected
    assert decode_stats("churn@1", [word for pair in stored.items() for word in pair]) == expected
    assert expected.failure_rate == 0.02
    assert decode_stats("churn@1", {}) == VersionStats()
    assert VersionStats().failure_rate == 0.0
