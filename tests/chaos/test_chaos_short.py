"""The chaos suite in small: the same scenarios and checks as `make chaos`, with few faults and a short lease."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.disk import LeftOut
from tests.chaos.scenario import Scenario, play
from tests.chaos.suite import SCENARIOS
from tests.chaos.workers import Nursery

#: Those that `make test` plays.
SHORT = [scenario for scenario in SCENARIOS.values() if scenario.short]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder, Nursery(Path(folder)) as nursery:
        yield nursery


def test_the_suite_has_every_scenario() -> None:
    assert sorted(SCENARIOS) == list(range(1, 20))


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.title)
def test_no_confirmed_job_is_lost_and_no_outcome_published_twice(scenario: Scenario, nursery: Nursery) -> None:
    try:
        played = play(scenario, "headrace", "short", nursery, seed=1)
    except LeftOut as reason:
        pytest.skip(str(reason))
    assert played.verdict.confirmed > 0
    assert played.verdict.broken == []
