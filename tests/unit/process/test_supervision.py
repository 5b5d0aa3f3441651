"""What the worker's event loop keeps of claims that have ended."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from kombu.asynchronous.hub import Hub

from headrace_worker.process import supervision


def turn(hub: Hub, seconds: float) -> None:
    """Let the timers of a hub fire for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(hub.fire_timers(), 0.005))


def test_timers_of_time_limits_go_with_their_claims_and_others_fire_in_order(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(supervision, "_FORGET_EVERY", 0.02)
    hub, fired = Hub(), []
    step = supervision.PruneTimers(SimpleNamespace())
    step.register_with_event_loop(SimpleNamespace(), hub)
    limits = [hub.call_later(3_600, fired.append, "never") for _ in range(1_000)]
    for place in (3, 1, 2):
        hub.call_later(0.05 * place, fired.append, place)
    for limit in limits[1:]:
        limit.cancel()
    turn(hub, 0.04)
    assert len(hub.timer) == 5  # one time limit, three to come, and that which drops
    turn(hub, 0.2)
    assert fired == [1, 2, 3]
    assert len(hub.timer) == 2
    hub.close()
