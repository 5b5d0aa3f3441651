"""KEDA and the HorizontalPodAutoscaler, played: what they decide of a ScaledObject, at any speed of the clock.

KEDA's operator polls the trigger and scales between 0 and 1; the autoscaler syncs every 15 s and scales above 1. A
missing value keeps the replicas, and after the fallback's threshold counts as the fallback (KEDA 2.17 and later).
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from tests.chart.cluster import Cluster
from tests.chart.fields import Fields, Refused
from tests.support.keda import ValueMissing, read_value

#: Seconds between two syncs of the HorizontalPodAutoscaler.
SYNC_SECONDS = 15.0
#: The share by which the value may differ from the target without a change.
TOLERANCE = 0.1


@dataclass(frozen=True)
class ScalingRule:
    """A ScaledObject with one `metrics-api` trigger. Times are in seconds."""

    deployment: str
    minimum: int
    maximum: int
    polling: float
    cooldown: float
    #: Failures in a row after which the fallback counts, its replicas and behaviour; None without a fallback.
    fallback: tuple[int, int, str] | None
    #: The window of recommendations of which the highest counts.
    stabilization: float
    #: The number of pods that may be removed within a number of seconds; None is any number.
    down: tuple[int, float] | None
    url: str
    value_location: str
    target: float
    activation: float


def read_scaled_object(item: Mapping[str, Any]) -> ScalingRule:
    """Read a ScaledObject. Raises Refused for what is not played."""
    name = item["metadata"]["name"]
    stabilization, down = 300.0, None
    with Fields(item["spec"], f"ScaledObject/{name}: spec") as spec:
        with spec.child("scaleTargetRef") as target_fields:
            target_fields.expect("kind", "Deployment")
            deployment = target_fields.take("name")
        fallback = None
        if (value := spec.take("fallback", None)) is not None:
            with Fields(value, f"{spec.path}.fallback") as fields:
                behavior = fields.take("behavior", "static")
                if behavior not in ("static", "currentReplicas", "currentReplicasIfHigher"):
                    raise Refused(f"{fields.path}.behavior is {behavior!r}, which is not played")
                fallback = (fields.take("failureThreshold"), fields.take("replicas"), behavior)
        with (
            spec.child("advanced", {}) as advanced,
            advanced.child("horizontalPodAutoscalerConfig", {}) as config,
            config.child("behavior", {}) as behaviors,
            behaviors.child("scaleDown", {}) as scale_down,
        ):
            stabilization = float(scale_down.take("stabilizationWindowSeconds", stabilization))
            for policy in scale_down.children("policies"):
                policy.expect("type", "Pods")
                down = (policy.take("value"), float(policy.take("periodSeconds")))
        (trigger,) = spec.take("triggers")
        with Fields(trigger, f"{spec.path}.triggers[0]") as fields:
            fields.expect("type", "metrics-api")
            fields.expect("metricType", "AverageValue")
            with fields.child("metadata") as metadata:
                metadata.expect("format", "prometheus")
                return ScalingRule(
                    deployment=deployment,
                    minimum=spec.take("minReplicaCount", 0),
                    maximum=spec.take("maxReplicaCount", 100),
                    polling=float(spec.take("pollingInterval", 30)),
                    cooldown=float(spec.take("cooldownPeriod", 300)),
                    fallback=fallback,
                    stabilization=stabilization,
                    down=down,
                    url=metadata.take("url"),
                    value_location=metadata.take("valueLocation"),
                    target=float(metadata.take("targetValue")),
                    activation=float(metadata.take("activationTargetValue", "0")),
                )


class Decisions:
    """The decisions of KEDA and of the autoscaler over time. A value of None is one that could not be read."""

    def __init__(self, rule: ScalingRule) -> None:
        self._rule = rule
        self._failures = 0
        self._last_active: float | None = None
        #: Recommendations and removals of pods, with their times.
        self._recommendations: list[tuple[float, int]] = []
        self._removals: list[tuple[float, int]] = []

    def poll(self, now: float, replicas: int, value: float | None) -> int:
        """Return the replicas after a poll of the trigger by KEDA's operator."""
        rule = self._rule
        if value is None:
            return replicas
        if value > rule.activation:
            self._last_active = now
            return replicas or max(1, rule.minimum)
        active = self._last_active is not None and now - self._last_active <= rule.cooldown
        if rule.minimum == 0 and not active:
            return 0
        return max(replicas, rule.minimum)

    def sync(self, now: float, replicas: int, value: float | None) -> int:
        """Return the replicas after a sync of the autoscaler, which is off at 0 replicas."""
        if replicas == 0:
            self._recommendations.clear()
            return 0
        recommended = self._recommend(replicas, value)
        if recommended is None:
            return replicas
        rule = self._rule
        self._recommendations = [
            (moment, number) for moment, number in self._recommendations if now - moment < rule.stabilization
        ] or [(now, replicas)]
        self._recommendations.append((now, recommended))
        if recommended >= replicas:
            return min(recommended, max(2 * replicas, replicas + 4))
        stable = min(replicas, max(number for _, number in self._recommendations))
        if rule.down is not None:
            number, period = rule.down
            removed = sum(count for moment, count in self._removals if now - moment < period)
            stable = max(stable, replicas + removed - number)
        stable = min(stable, replicas)
        self._removals.append((now, replicas - stable))
        return stable

    def _recommend(self, replicas: int, value: float | None) -> int | None:
        rule = self._rule
        self._failures = self._failures + 1 if value is None else 0
        if value is None:
            if rule.fallback is None or self._failures <= rule.fallback[0]:
                return None
            _, number, behavior = rule.fallback
            number = {"static": number, "currentReplicas": replicas}.get(behavior, max(number, replicas))
            value = rule.target * number
        number = ceil(value / rule.target)
        if abs(value / (rule.target * replicas) - 1) <= TOLERANCE:
            number = replicas
        return min(max(number, rule.minimum, 1), rule.maximum)


class Autoscaler:
    """A thread that scales a Deployment of a cluster, on a clock that runs `speed` times as fast."""

    def __init__(self, cluster: Cluster, rule: ScalingRule, speed: float) -> None:
        self.rule = rule
        #: Each value that was read, with its time; None for one that is missing.
        self.values: list[tuple[float, float | None]] = []
        self._cluster, self._speed = cluster, speed
        self._decisions = Decisions(rule)
        self._started = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="autoscaler", daemon=True)

    def __enter__(self) -> Autoscaler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(60)

    def _run(self) -> None:
        polled = synced = float("-inf")
        while not self._stopped.wait(0.1):
            now = (time.monotonic() - self._started) * self._speed
            if now - polled >= self.rule.polling:
                polled = now
                self._decide(self._decisions.poll, now)
            if now - synced >= SYNC_SECONDS:
                synced = now
                self._decide(self._decisions.sync, now)

    def _decide(self, decide: Callable[[float, int, float | None], int], now: float) -> None:
        deployment, value = self._cluster.deployments[self.rule.deployment], self._read()
        self.values.append((now, value))
        deployment.scale(decide(now, deployment.replicas, value))

    def _read(self) -> float | None:
        """Read the value as the trigger does, over the Service of the exporter."""
        parts = urlsplit(self.rule.url)
        try:
            address = self._cluster.resolve(str(parts.hostname))
            with urllib.request.urlopen(f"http://{address}:{parts.port}{parts.path}", timeout=3) as response:
                return read_value(response.read().decode(), self.rule.value_location)
        except (OSError, ValueMissing):
            return None
