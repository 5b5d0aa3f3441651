"""The charts of the last hour: what is counted for each minute, and the bound of their memory."""

from __future__ import annotations

import pytest

from headrace_worker.dashboard.last_hour import MINUTES, LastHour, draw_line, find_largest


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 60.0 * 1_000_000

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def last_hour(clock: Clock) -> LastHour:
    return LastHour(clock)


def test_jobs_failures_waits_and_depths_are_counted_by_minute(last_hour: LastHour, clock: Clock) -> None:
    for number in range(120):
        last_hour.record_finished("churn", "3", failed=number < 5)
    for seconds in (0.1, 0.2, 0.3, 9.0):
        last_hour.record_wait("churn", "3", seconds)
    last_hour.record_depth("churn", 17)
    clock.seconds += 60
    last_hour.record_finished("churn", "4", failed=False)
    hour = last_hour.read("churn")
    assert (len(hour.failed), hour.failed[-2:]) == (MINUTES, (5, 0))
    assert hour.jobs_per_second[-2:] == (2.0, 1.0)
    assert (hour.wait_p50[-2:], hour.wait_p95[-2:]) == ((0.3, None), (9.0, None))
    assert hour.depth[-2:] == (17, None)
    assert last_hour.read("churn", "3").failed[-2:] == (5, 0)
    assert last_hour.read("churn", "4").jobs_per_second[-2:] == (0.0, 1.0)
    assert last_hour.versions("churn") == ["4", "3"]
    assert last_hour.read("fraud").failed == (0,) * MINUTES
    assert [last_hour.read(model).is_active for model in ("churn", "fraud")] == [True, False]


def test_an_hour_later_nothing_is_left_of_a_minute(last_hour: LastHour, clock: Clock) -> None:
    last_hour.record_finished("churn", "3", failed=True)
    clock.seconds += 59 * 60
    assert last_hour.read("churn").failed[0] == 1
    clock.seconds += 60
    last_hour.record_finished("churn", "4", failed=False)
    assert sum(last_hour.read("churn").failed) == 0
    assert last_hour.versions("churn") == ["4"]


def test_the_memory_has_a_bound_in_series_minutes_and_waits(last_hour: LastHour, clock: Clock) -> None:
    for minute in range(3 * MINUTES):
        for number in range(100):
            last_hour.record_wait("churn", "3", float(number))
        for version in range(4):
            last_hour.record_finished(f"model-{minute}", str(version), failed=False)
        clock.seconds += 60
    series, minutes, waits = last_hour.size()
    assert series == 200
    assert minutes <= 200 * MINUTES
    assert waits == 2 * MINUTES * 40  # of the model, and of its version


def test_a_line_has_gaps_where_there_is_no_value_and_dots_for_single_ones() -> None:
    values = (0.0, 2.0, None, 1.0)
    assert (
        draw_line(values, find_largest(values), width=30, height=22)
        == "M0.0 21.0L0.0 21.0L10.0 1.0M30.0 11.0L30.0 11.0"
    )
    assert find_largest((None, None)) == 0.0
    assert draw_line((None, 0.0), 0.0, width=30, height=22) == "M30.0 21.0L30.0 21.0"


def test_active_models_and_versions_are_named_with_the_beginning_of_the_hour(
    last_hour: LastHour, clock: Clock
) -> None:
    last_hour.record_finished("fraud", "7", failed=False)
    clock.seconds += 60 * MINUTES
    last_hour.record_finished("churn", "3", failed=False)
    assert last_hour.names() == [("churn", ""), ("churn", "3")]
    assert last_hour.start() == clock.seconds - 60 * (MINUTES - 1)
    assert len(last_hour.read("churn", "3").failed) == MINUTES
