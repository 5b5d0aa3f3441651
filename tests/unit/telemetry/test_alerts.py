"""The alert rules and the dashboard: every metric they use exists, Prometheus accepts them, each alert fires."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from headrace_gateway.metrics import RequestMetrics
from headrace_gateway.notify import metrics as notify_metrics
from headrace_worker.process import monitoring
from headrace_worker.telemetry import queue_metrics
from headrace_worker.telemetry.metrics import Metric
from tests.support import ROOT

DEPLOY = ROOT / "deploy"
ALERTS, TESTS = DEPLOY / "prometheus" / "alerts.yml", DEPLOY / "prometheus" / "alerts_test.yml"
DASHBOARD = DEPLOY / "grafana" / "headrace.json"
METRICS = (*monitoring.METRICS, *queue_metrics.METRICS)


class GatewayMetric(NamedTuple):
    """A metric of the gateway or the notifier, which prometheus-client keeps."""

    name: str
    kind: str
    labels: tuple[str, ...]


def gateway_metrics(registry: CollectorRegistry) -> list[GatewayMetric]:
    return [
        GatewayMetric(
            f"{family.name}_total" if family.type == "counter" else family.name, family.type, collector._labelnames
        )
        for collector in registry._collector_to_names
        for family in collector.describe()
    ]


REQUESTS = CollectorRegistry()
RequestMetrics(REQUESTS)
ALL_METRICS = (*METRICS, *gateway_metrics(REQUESTS), *gateway_metrics(notify_metrics.NotifyMetrics().registry))

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")


def promtool(*args: str) -> None:
    process = subprocess.run(["promtool", *args], capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


def series_names(metric: Metric | GatewayMetric | notify_metrics.Metric) -> set[str]:
    """Return the names under which Prometheus stores a metric's numbers."""
    if metric.kind == "histogram":
        return {f"{metric.name}{suffix}" for suffix in ("_bucket", "_sum", "_count")}
    return {metric.name}


def panel_expressions() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize("text", [ALERTS.read_text(), TESTS.read_text(), DASHBOARD.read_text()])
def test_every_metric_that_is_used_exists(text: str) -> None:
    existing = set().union(*map(series_names, ALL_METRICS))
    assert set(re.findall(r"\bheadrace_[a-z_]+", text)) <= existing


def test_every_label_that_is_used_exists() -> None:
    labels = {label for metric in ALL_METRICS for label in metric.labels} | {"le"}
    groupings = re.findall(r"\b(?:by|on) \(([^)]*)\)", ALERTS.read_text() + DASHBOARD.read_text())
    assert groupings
    assert {label for grouping in groupings for label in grouping.split(", ")} <= labels
    assert set(re.findall(r"\$labels\.(\w+)", ALERTS.read_text())) <= labels
    legends = re.findall(r'"legendFormat": "(.*)"', DASHBOARD.read_text())
    assert {label for legend in legends for label in re.findall(r"\{\{(\w+)\}\}", legend)} <= labels | {"instance"}


def test_each_alert_is_tested() -> None:
    alerts = set(re.findall(r"alert: (\w+)", ALERTS.read_text()))
    assert alerts
    assert alerts == set(re.findall(r'alertname="(\w+)"', TESTS.read_text()))


@needs_promtool
def test_each_alert_fires_in_its_case() -> None:
    promtool("check", "rules", str(ALERTS))
    promtool("test", "rules", str(TESTS))
    promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


@needs_promtool
def test_prometheus_accepts_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    expressions = [
        expression.replace("$__rate_interval", "5m").replace("$model", ".*") for expression in panel_expressions()
    ]
    records = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions)]
    rules.write_text(json.dumps({"groups": [{"name": "panels", "rules": records}]}))
    promtool("check", "rules", str(rules))


def test_the_dashboard_shows_what_is_known_of_webhooks() -> None:
    shown = " ".join(panel_expressions())
    for metric in (*notify_metrics.METRICS, queue_metrics.NOTICES):
        assert any(name in shown for name in series_names(metric)), metric.name


def test_panels_do_not_overlap() -> None:
    occupied: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        position = panel["gridPos"]
        cells = {
            (position["x"] + x, position["y"] + y) for x in range(position["w"]) for y in range(position["h"])
        }
        assert not occupied & cells
        assert position["x"] + position["w"] <= 24
        occupied |= cells
