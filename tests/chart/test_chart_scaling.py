"""The number that the chart's autoscalers read, from the exporter as the chart starts it."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headrace import Client
from tests.chart.helm import Object, pick, render, render_file, select
from tests.support.connections import free_port
from tests.support.keda import read_value
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


@contextmanager
def run_exporter(objects: list[Object], redis_url: str) -> Iterator[str]:
    """Run the exporter of a rendered chart on a free port; yield the address of its metrics."""
    (container,) = pick(objects, "Deployment", "headrace-exporter")["spec"]["template"]["spec"]["containers"]
    port = free_port()
    arguments = [f"--port={port}" if item.startswith("--port=") else item for item in container["args"]]
    command = [sys.executable, "-m", "headrace.cli", *arguments, "--url", redis_url]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as exporter:
        try:
            yield f"http://127.0.0.1:{port}/metrics"
        finally:
            exporter.terminate()


def read_soon(address: str) -> str:
    """Return a page of metrics, once the exporter has started."""

    def read() -> str:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            return ""

    return wait_until(read, seconds=60)


def test_each_trigger_of_keda_reads_the_backlog_of_its_class(redis_url: str):
    objects = render_file("keda")
    with Client(redis_url, check=False) as client:
        client.submit_many("tumour", [[1.0]] * 3)
        client.submit_many("lesion", [[1.0]])
        client.submit_many("rare", [[1.0]] * 2)
    with run_exporter(objects, redis_url) as address:
        page = read_soon(address)
    backlogs = {
        item["metadata"]["name"]: read_value(page, item["spec"]["triggers"][0]["metadata"]["valueLocation"])
        for item in select(objects, "ScaledObject")
    }
    assert backlogs == {"headrace-default": 6, "headrace-forest": 4, "headrace-rare": 2}


def test_a_class_with_the_name_of_a_number_has_its_backlog_too(redis_url: str):
    with run_exporter(render_file("classes"), redis_url) as address:
        page = read_soon(address)
    for name in ("2", "true", "online", "empty"):
        assert read_value(page, f'headrace_class_backlog{{class="{name}"}}') == 0


def test_the_external_metric_of_an_autoscaler_is_a_series_of_the_exporter():
    objects = render_file("hpa")
    (metric,) = pick(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["external"]["metric"] == {
        "name": "headrace_class_backlog",
        "selector": {"matchLabels": {"class": "default", "service": "headrace-exporter"}},
    }
    assert pick(objects, "Service")["metadata"]["name"] == "headrace-exporter"


@pytest.mark.parametrize(("scale", "fallback"), [({"min": 0}, 1), ({"min": 1}, 1), ({"min": 4}, 4)], ids=str)
def test_an_outage_of_the_exporter_stops_no_worker_and_starts_one(scale: Object, fallback: int):
    values = {"models": {"claim": "models"}, "workers": {"default": {"scale": {"by": "keda", **scale}}}}
    spec = pick(render(values), "ScaledObject")["spec"]
    assert spec["minReplicaCount"] == scale["min"]
    assert spec["fallback"] == {
        "failureThreshold": 3,
        "replicas": fallback,
        "behavior": "currentReplicasIfHigher",
    }


def test_a_class_shrinks_by_one_worker_a_minute_after_its_cooldown():
    behavior = {
        "scaleDown": {
            "stabilizationWindowSeconds": 600,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        }
    }
    for by, path in (("keda", ["advanced", "horizontalPodAutoscalerConfig"]), ("hpa", [])):
        scale = {"by": by, "cooldown": 600}
        values = {"models": {"claim": "models"}, "workers": {"default": {"scale": scale}}}
        kind = {"keda": "ScaledObject", "hpa": "HorizontalPodAutoscaler"}[by]
        spec = pick(render(values), kind)["spec"]
        for name in path:
            spec = spec[name]
        assert spec["behavior"] == behavior
