"""Alert rules and the dashboard ask for metrics there are, in words that Prometheus takes, and alerts fire."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from headrace_worker.process import monitoring
from headrace_worker.telemetry import queue_metrics
from headrace_worker.telemetry.metrics import Metric
from tests.support import ROOT

DEPLOY = ROOT / "deploy"
ALERTS, TESTS = DEPLOY / "prometheus" / "alerts.yml", DEPLOY / "prometheus" / "alerts_test.yml"
DASHBOARD = DEPLOY / "grafana" / "headrace.json"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")


def promtool(*words: str) -> None:
    ran = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def names(metric: Metric) -> set[str]:
    """The names under which a metric's numbers are stored."""
    if metric.kind == "histogram":
        return {f"{metric.name}{end}" for end in ("_bucket", "_sum", "_count")}
    return {metric.name}


def expressions() -> list[str]:
    """Those of the dashboard's panels."""
    dashboard = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize("asks", [ALERTS.read_text(), TESTS.read_text(), DASHBOARD.read_text()])
def test_only_metrics_are_asked_for_that_there_are(asks: str) -> None:
    there = set().union(*map(names, (*monitoring.SHOWN, *queue_metrics.METRICS)))
    assert set(re.findall(r"\bheadrace_[a-z_]+", asks)) <= there


def test_only_by_labels_there_are_is_anything_summed_up() -> None:
    labels = {label for metric in (*monitoring.SHOWN, *queue_metrics.METRICS) for label in metric.labels} | {"le"}
    asked = re.findall(r"\b(?:by|on) \(([^)]*)\)", ALERTS.read_text() + DASHBOARD.read_text())
    assert asked
    assert {label for group in asked for label in group.split(", ")} <= labels
    told = re.findall(r"\$labels\.(\w+)", ALERTS.read_text())
    assert set(told) <= labels


def test_each_alert_is_tested() -> None:
    alerts = set(re.findall(r"alert: (\w+)", ALERTS.read_text()))
    assert alerts
    assert alerts == set(re.findall(r'alertname="(\w+)"', TESTS.read_text()))


@needs_promtool
def test_alerts_fire_for_what_they_are_for() -> None:
    promtool("check", "rules", str(ALERTS))
    promtool("test", "rules", str(TESTS))
    promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


@needs_promtool
def test_prometheus_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    asked = [one.replace("$__rate_interval", "5m").replace("$model", ".*") for one in expressions()]
    records = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(asked)]
    rules.write_text(json.dumps({"groups": [{"name": "panels", "rules": records}]}))
    promtool("check", "rules", str(rules))


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not taken & cells
        assert at["x"] + at["w"] <= 24
        taken |= cells
