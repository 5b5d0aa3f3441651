"""The soak in short: a minute of the whole stack at a low rate, with three kills."""

from __future__ import annotations

import pytest

from tests.soak.report import as_markdown_page
from tests.soak.run import SoakConfig, run_soak

CONFIG = SoakConfig(minutes=0.75, rate=15, seed=13, kill_every=11, sample_every=2, warm_up=5)


@pytest.mark.long
def test_a_short_soak_loses_no_job_and_publishes_no_outcome_twice() -> None:
    report = run_soak(CONFIG)
    assert len(report.kills) == 3
    assert len({kill.victim for kill in report.kills}) > 1
    assert report.result.confirmed > 100
    assert report.result.over_http > 0
    # `missed_deadlines` is for `make soak`: other tests run on this machine at the same time.
    assert report.result.broken_promises == []
    assert {slope.kind for slope in report.result.slopes} == {
        *("client", "worker", "worker, pool", "Flower", "gateway", "Redis")
    }
    assert "lost" in as_markdown_page(report)
