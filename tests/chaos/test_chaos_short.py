"""The short chaos suite: scenarios and checks of `make chaos`, with few faults and a short lease."""

from __future__ import annotations

import pytest

from tests.chaos.disk import SkipScenario
from tests.chaos.scenario import Scenario, run_scenario
from tests.chaos.suite import SCENARIOS

#: The scenarios that `make test` runs.
SHORT = [scenario for scenario in SCENARIOS.values() if scenario.short]


def test_the_suite_has_every_scenario() -> None:
    assert sorted(SCENARIOS) == [*range(1, 43)]


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.title)
def test_no_confirmed_job_is_lost_and_no_outcome_published_twice(scenario: Scenario) -> None:
    try:
        result = run_scenario(scenario, "headrace", "short", seed=1)
    except SkipScenario as reason:
        pytest.skip(str(reason))
    assert result.check.confirmed > 0
    # `missed_deadlines` is for `make chaos`: other tests run on this machine at the same time.
    assert result.check.broken_promises == []
