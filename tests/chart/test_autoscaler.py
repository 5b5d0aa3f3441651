"""The decisions of the played KEDA and autoscaler, on a clock of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from tests.chart.autoscaler import Decisions, ScalingRule, read_scaled_object
from tests.chart.fields import Refused

RULE = ScalingRule(
    deployment="workers",
    minimum=0,
    maximum=8,
    polling=30,
    cooldown=300,
    fallback=(3, 2, "static"),
    stabilization=300,
    down=(1, 60),
    url="http://exporter.ml.svc:9465/metrics",
    value_location='headrace_class_backlog{class="forest"}',
    target=50,
    activation=0,
)


def replay(
    rule: ScalingRule, values: Callable[[float], float | None], until: float, replicas: int = 0
) -> list[tuple[float, int]]:
    """Return each change of the replicas with its time, polls and syncs in their periods."""
    decisions, changes = Decisions(rule), []
    for now in range(0, int(until), 15):
        steps = [decisions.sync] if now % rule.polling else [decisions.poll, decisions.sync]
        for step in steps:
            decided = step(now, replicas, values(now))
            if decided != replicas:
                changes.append((now, decided))
            replicas = decided
    return changes


def numbers(changes: Iterable[tuple[float, int]]) -> list[int]:
    return [number for _, number in changes]


def test_a_backlog_scales_from_zero_to_the_desired_number_and_back_to_zero_after_the_cooldown():
    changes = replay(RULE, lambda now: 350 if now < 600 else 0, 2000)
    assert numbers(changes) == [1, 5, 7, 6, 0]
    assert changes[0] == (0, 1)


def test_the_maximum_bounds_the_replicas_and_the_minimum_keeps_them():
    assert max(numbers(replay(RULE, lambda _: 5000, 600))) == 8
    changes = replay(replace(RULE, minimum=2), lambda now: 5000 if now < 100 else 0, 3000)
    assert numbers(changes)[0] == 2
    assert numbers(changes)[-1] == 2


def test_zero_waits_for_the_cooldown_after_the_last_activity():
    changes = replay(RULE, lambda now: 20 if now < 100 else 0, 1000)
    assert changes == [(0, 1), (420, 0)]


def test_a_backlog_that_comes_and_goes_within_the_window_removes_no_worker():
    changes = replay(RULE, lambda now: 200 if now % 240 < 60 else 10, 3000)
    assert numbers(changes) == [1, 4]


def test_a_backlog_near_the_target_changes_nothing():
    assert replay(RULE, lambda now: 200 if now < 60 else 215, 600) == [(0, 1), (0, 4)]


def test_a_missing_value_keeps_the_replicas_and_counts_as_the_fallback_after_its_failures():
    decisions = Decisions(RULE)
    assert [decisions.sync(15 * number, 5, None) for number in range(3)] == [5, 5, 5]
    assert decisions.poll(1e6, 5, None) == 5
    changes = replay(RULE, lambda _: None, 1000, replicas=5)
    assert numbers(changes) == [4, 3, 2]
    assert changes[0][0] >= RULE.stabilization
    assert (
        replay(replace(RULE, fallback=(3, 2, "currentReplicasIfHigher")), lambda _: None, 1000, replicas=5) == []
    )
    assert numbers(replay(RULE, lambda _: None, 1000, replicas=1)) == [2]
    assert replay(RULE, lambda _: None, 1000, replicas=0) == []


def test_an_activation_above_zero_ignores_a_small_backlog():
    assert replay(replace(RULE, activation=5), lambda _: 5, 600) == []
    assert numbers(replay(replace(RULE, activation=5), lambda _: 6, 600)) == [1]


def test_a_scaled_object_with_what_is_not_played_is_refused():
    metadata = {"url": "http://x/metrics", "format": "prometheus", "valueLocation": "x", "targetValue": "5"}
    spec = {"scaleTargetRef": {"name": "d"}, "triggers": [{"type": "metrics-api", "metadata": metadata}]}
    item = {"metadata": {"name": "x"}, "spec": spec}
    rule = read_scaled_object(item)
    assert (rule.deployment, rule.target, rule.cooldown, rule.polling, rule.minimum) == ("d", 5, 300, 30, 0)
    for more, message in (({"idleReplicaCount": 0}, "idleReplicaCount"), ({"fallback": {"behavior": "x"}}, "'x'")):
        with pytest.raises(Refused, match=message):
            read_scaled_object(item | {"spec": spec | more})
