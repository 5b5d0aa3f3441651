"""The metrics as docs/reference/metrics.md lists them."""

from __future__ import annotations

import re

import pytest

from headrace_gateway import metrics
from headrace_gateway.notify import metrics as notify_metrics
from headrace_worker.process import monitoring
from headrace_worker.telemetry import queue_metrics
from headrace_worker.telemetry.metrics import Metric
from tests.support import ROOT

REFERENCE = ROOT / "docs" / "reference" / "metrics.md"
METRICS = (*monitoring.METRICS, *queue_metrics.METRICS)
ALL = (*METRICS, *metrics.METRICS, *notify_metrics.METRICS)


def test_the_reference_lists_every_metric_as_declared_and_no_other() -> None:
    page = re.sub(r"\n  +", " ", REFERENCE.read_text())
    entries = re.findall(r"^- `(headrace_\w+)` \((\w+)(.*?)\): (.*)$", page, re.MULTILINE)
    documented = [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in entries
    ]
    assert documented == [(metric.name, metric.kind, metric.labels, metric.help) for metric in ALL]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_conventions_of_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"headrace_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(metric.buckets)
