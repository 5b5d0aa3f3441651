"""The time until a full queue has room again."""

from __future__ import annotations

from headrace_gateway.outcome_rate import OutcomeRates
from tests.support.fake_clock import FakeClock


def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = FakeClock()
    rates = OutcomeRates(clock)
    for _ in range(120):
        rates.record("churn")
    assert (rates.per_second("churn"), rates.per_second("prices")) == (2.0, 0.0)
    clock.advance(30)
    for _ in range(60):
        rates.record("churn")
    assert rates.per_second("churn") == 3.0
    clock.advance(40)
    assert rates.per_second("churn") == 1.0
    clock.advance(60)
    assert rates.per_second("churn") == 0.0


def test_a_full_queue_is_tried_again_when_its_jobs_have_ended_within_limits_and_not_by_all_at_once() -> None:
    rates = OutcomeRates(FakeClock())
    assert {rates.retry_after("churn", 1_000_000) for _ in range(200)} <= set(range(48, 61))
    for _ in range(6000):
        rates.record("churn")
    seconds = [rates.retry_after("churn", 2000) for _ in range(200)]  # 100 a second
    assert (min(seconds) >= 16, max(seconds) <= 24, len(set(seconds)) > 3) == (True, True, True)
    assert {rates.retry_after("churn", 10) for _ in range(200)} == {1}
