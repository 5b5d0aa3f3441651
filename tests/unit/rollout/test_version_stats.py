"""What is counted of a version is read back, and its times are told to a bucket."""

from __future__ import annotations

import pytest

from headrace_worker.rollout.version_stats import VersionStats, bucket_of, decode_stats


def test_the_time_a_part_of_the_jobs_was_within_is_told_to_a_fifth():
    one = VersionStats()
    one.add_duration(0.001, 98)
    one.add_duration(0.1, 2)
    assert one.quantile_seconds(0.5) == pytest.approx(0.001, rel=0.2)
    assert one.quantile_seconds(0.98) == pytest.approx(0.001, rel=0.2)
    assert one.quantile_seconds(0.99) == pytest.approx(0.1, rel=0.2)
    assert one.quantile_seconds(0.99) >= 0.1
    assert VersionStats().quantile_seconds(0.99) is None


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e-6, 0.01, 1.0, 1e9])
def test_every_time_has_a_bucket(seconds: float):
    assert 0 <= bucket_of(seconds) <= 160


def test_a_tally_is_read_whichever_form_the_reply_has_and_whatever_else_is_in_it():
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
    assert decode_stats(stored) == expected
    assert decode_stats([word for pair in stored.items() for word in pair]) == expected
    assert expected.failure_rate == 0.02
    assert decode_stats({}) == VersionStats()
    assert VersionStats().failure_rate == 0.0
