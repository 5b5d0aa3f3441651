"""The worker's event loop keeps no timers of claims that have ended."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from kombu.asynchronous.hub import Hub

from headrace_worker.process import supervision


def turn(hub: Hub, seconds: float) -> None:
    """Fire the timers of a hub for this time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(min(hub.fire_timers(), 0.005))


def test_timers_of_time_limits_go_with_their_claims_and_others_fire_in_order(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(supervision, "_PRUNE_SECONDS", 0.02)
    hub, fired = Hub(), []
    step = supervision.PruneTimers(SimpleNamespace())
    step.register_with_event_loop(SimpleNamespace(), hub)
    limits = [hub.call_later(3_600, fired.append, "never") for _ in range(1_000)]
    for order in (3, 1, 2):
        hub.call_later(0.05 * order, fired.append, order)
    for limit in limits[1:]:
        limit.cancel()
    turn(hub, 0.04)
    assert len(hub.timer) == 5  # one time limit, three that are due, and the timer that prunes
    turn(hub, 0.2)
    assert fired == [1, 2, 3]
    assert len(hub.timer) == 2
    hub.close()
