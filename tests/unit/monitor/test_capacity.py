"""The pool processes that a model needs, and the wait of its jobs."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.catalog.pauses import Pause
from headrace.errors import InvalidInput
from headrace.inspection.queues import QueueDepth
from headrace.monitor.capacity import count_needed_processes, mean_wait, predict_wait

LOADS = st.fixed_dictionaries(
    {
        "backlog": st.integers(0, 200),
        "arrivals": st.floats(0, 300),
        "rate": st.floats(0.5, 10_000),
        "wait": st.floats(0.05, 3600),
    }
)


def test_the_examples_of_the_page_on_capacity_hold() -> None:
    assert mean_wait(processes=5, arrivals=300, rate=100) == pytest.approx(0.0012, abs=5e-5)
    assert mean_wait(processes=4, arrivals=300, rate=100) == pytest.approx(0.0051, abs=5e-5)
    assert mean_wait(processes=3, arrivals=300, rate=100) == math.inf
    for processes, arrivals, expected in ((2, 3.0, 0.685), (4, 6.0, 0.306)):
        assert mean_wait(processes=processes, arrivals=arrivals, rate=1.95) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("backlog", "arrivals", "rate", "wait", "needed"),
    [
        (0, 0, 100, 5, 0),
        (1, 0, 100, 5, 1),
        (0, 0.1, 100, 5, 1),
        (500, 0, 100, 5, 1),
        (501, 0, 100, 5, 2),
        (0, 300, 100, 0.0050, 5),
        (0, 300, 100, 0.0052, 4),
        (6000, 300, 100, 5, 12),
        (0, 300, 100, 3600, 4),
    ],
)
def test_the_larger_of_draining_and_keeping_up_is_needed(
    backlog: int, arrivals: float, rate: float, wait: float, needed: int
) -> None:
    assert count_needed_processes(backlog=backlog, arrivals=arrivals, rate=rate, wait=wait) == needed


@settings(max_examples=200, deadline=None)
@given(load=LOADS)
def test_the_number_is_enough_and_one_less_is_not(load: dict[str, Any]) -> None:
    needed = count_needed_processes(**load)

    def is_enough(processes: int) -> bool:
        rate, backlog = load["rate"], load["backlog"]
        drains = not backlog or (processes > 0 and backlog / rate / load["wait"] <= processes)
        return drains and mean_wait(processes=processes, arrivals=load["arrivals"], rate=rate) <= load["wait"]

    assert is_enough(needed)
    assert needed == 0 or not is_enough(needed - 1)


@settings(max_examples=200, deadline=None)
@given(load=LOADS, name=st.sampled_from(["backlog", "arrivals", "rate", "wait"]), factor=st.floats(1, 20))
def test_more_load_never_needs_fewer_processes_and_more_speed_or_patience_never_more(
    load: dict[str, Any], name: str, factor: float
) -> None:
    larger = {**load, name: type(load[name])(load[name] * factor)}
    before, after = count_needed_processes(**load), count_needed_processes(**larger)
    assert after >= before if name in {"backlog", "arrivals"} else after <= before


@pytest.mark.parametrize("load", [{"backlog": 10**12}, {"arrivals": 1e12}, {"rate": 1e-12}, {"wait": 1e-12}])
def test_a_number_beyond_all_reason_is_refused_and_not_computed(load: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="more than 1,000,000 pool processes"):
        count_needed_processes(**{"backlog": 100, "arrivals": 1.0, "rate": 1.0, "wait": 1.0, **load})


def depth(waiting: int = 0, *, due: int = 0, leased: int = 0, paused: Pause | None = None) -> QueueDepth:
    return QueueDepth(
        model="churn", queue="predict.churn", by_priority={0: waiting}, due=due, leased=leased, paused=paused
    )


def test_the_predicted_wait_is_that_of_the_backlog() -> None:
    assert predict_wait(depth(20, due=5, leased=15), 4.0) == 10
    assert predict_wait(depth(leased=15), 0.0) == 0, "no job waits"
    assert predict_wait(depth(due=1), 2.0) == 0.5
    assert predict_wait(depth(1), 0.0) is None, "none finishes"
    assert predict_wait(depth(1, paused=Pause(by="ann", at_ms=1)), 4.0) is None
