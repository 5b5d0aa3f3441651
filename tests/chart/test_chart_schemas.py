"""API servers of several versions accept the chart's objects, as far as their schemas tell."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.chart.helm import VALUES, Object, render_file, select
from tests.chart.schemas import VERSIONS, find_custom_errors, find_errors, is_custom

pytestmark = pytest.mark.long

#: A field of KEDA 2.17, newer than the schema; older versions ignore it.
NEWER = ["$.spec.fallback.behavior: unknown"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", VALUES)
def test_every_object_fits_the_strict_schema_of_kubernetes(name: str, version: str):
    for item in render_file(name):
        if not is_custom(item):
            assert find_errors(item, version) == [], item["kind"]


@pytest.mark.parametrize("name", VALUES)
def test_every_object_for_keda_and_prometheus_fits_their_schemas(name: str):
    for item in render_file(name):
        if is_custom(item):
            assert find_custom_errors(item) == (NEWER if item["kind"] == "ScaledObject" else [])


def test_values_cover_every_kind_of_object():
    kinds = {item["kind"] for name in VALUES for item in render_file(name)}
    assert kinds == {
        *("ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Job", "NetworkPolicy", "Pod"),
        *("PodDisruptionBudget", "PodMonitor", "PrometheusRule", "ScaledObject", "Service", "ServiceAccount"),
        "ServiceMonitor",
    }


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("Deployment", lambda spec: spec.update(replica=2)),
        ("Deployment", lambda spec: spec["template"]["spec"].update(terminationGracePeriodSecond=3)),
        ("Deployment", lambda spec: spec["template"]["spec"]["containers"][0].update(args="worker")),
        ("NetworkPolicy", lambda spec: spec["egress"][0]["ports"][0].update(port=None, ports=53)),
        ("PodDisruptionBudget", lambda spec: spec.update(maxUnavailable={})),
    ],
)
def test_the_schema_of_kubernetes_refuses_a_slip(kind: str, damage: Callable[[Object], None]):
    item = copy.deepcopy(next(item for item in render_file("minimal") if item["kind"] == kind))
    damage(item["spec"])
    assert find_errors(item, VERSIONS[0]) != []


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("ScaledObject", lambda spec: spec.update(minReplicas=2)),
        ("ScaledObject", lambda spec: spec["triggers"][0]["metadata"].update(targetValue=5)),
        ("PodMonitor", lambda spec: spec["podMetricsEndpoints"][0].update(intervall="5s")),
        ("ServiceMonitor", lambda spec: spec.update(endpoints={})),
        ("PrometheusRule", lambda spec: spec["groups"][0]["rules"][0].update(alerts="x")),
    ],
)
def test_the_schemas_of_the_operators_refuse_a_slip(kind: str, damage: Callable[[Object], None]):
    item = copy.deepcopy(select(render_file("everything"), kind)[0])
    damage(item["spec"])
    assert find_custom_errors(item) not in ([], NEWER)
