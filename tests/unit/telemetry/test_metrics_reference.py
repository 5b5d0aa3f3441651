"""docs/reference/metrics.md against the metrics there are."""

from __future__ import annotations

import re

import pytest

from headrace_worker.process import monitoring
from headrace_worker.telemetry import queue_metrics
from headrace_worker.telemetry.metrics import Metric
from tests.support import ROOT

REFERENCE = ROOT / "docs" / "reference" / "metrics.md"
SHOWN = (*monitoring.SHOWN, *queue_metrics.METRICS)


def test_every_metric_stands_in_the_reference_as_it_is_and_no_other_does() -> None:
    rows = re.findall(r"^\| `(headrace_\w+)` \| (\w+) \| (.*?)\s*\| (.*) \|$", REFERENCE.read_text(), re.MULTILINE)
    documented = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), said) for name, kind, labels, said in rows]
    assert documented == [(metric.name, metric.kind, metric.labels, metric.help) for metric in SHOWN]


@pytest.mark.parametrize("metric", SHOWN, ids=lambda metric: metric.name)
def test_names_are_as_prometheus_wants_them(metric: Metric) -> None:
    assert re.fullmatch(r"headrace_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(metric.buckets)
