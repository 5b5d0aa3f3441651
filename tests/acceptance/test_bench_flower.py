"""The measurement of Flower's pages runs, fetches each page, and writes its results. No duration is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import dashboard_page
from benchmarks.dashboard import DashboardBenchmark, Sizes
from benchmarks.machine import machine
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support import ROOT


@pytest.mark.timeout(300)
def test_pages_are_measured_with_jobs_of_a_real_worker(tmp_path: Path) -> None:
    with EmbeddedRedis("--appendfsync", "no") as server:
        results = DashboardBenchmark(server.url, tmp_path, Sizes(jobs=1_000, models=3, requests=1)).run()
    assert results["stored_jobs"] == 1_000
    assert results["matches"] == {
        "model:churn": 1_000,
        "version:2": 0,
        "error:InvalidInput": 20,
        'reason:"bad input"': 20,
        "state:FAILURE": 20,
    }
    assert {"rows of Tasks: first page", "by wait, middle page", "Job", "Models"} <= results["pages_ms"].keys()
    assert 0 < results["memory_mb"]["now"] <= results["memory_mb"]["peak"]
    copy = tmp_path / "flower.md"
    copy.write_text((ROOT / "docs" / "flower-benchmarks.md").read_text())
    described = {"date": "2026-11-30", "commit": "0", "machine": machine(0.0), **results}
    dashboard_page.write_into(copy, described)
    text = copy.read_text()
    dashboard_page.write_into(copy, described)
    assert copy.read_text() == text
    assert "| peak memory of Flower | less than 500 MB |" in text
    assert "| by wait, middle page |" in text
