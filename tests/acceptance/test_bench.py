"""The benchmark suite runs, checks every prediction, and writes its results. No duration is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import pool_replacement_page, report
from benchmarks.models import BOOSTERS

ROOT = Path(__file__).parents[2]

#: The first test waits for the run.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Run the suite with small sizes beside plain Celery; return its results and its output."""
    out = tmp_path_factory.mktemp("bench") / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--short", "--seconds", "0.1", "--deepest", "2000"]
    # Celery runs in this environment, so that nothing is downloaded.
    command += ["--peers", "headrace,celery,mayu", "--more", "depths,telemetry,boosters", "--out", str(out)]
    command += ["--environment", f"main={sys.executable}", "--environment", "mayu=/no/such/python"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert completed.returncode == 0, completed.stderr[-2000:]
    return json.loads(out.read_text()), completed.stdout


def test_every_peer_has_its_numbers(run: tuple[dict[str, Any], str]) -> None:
    peers = {row["name"]: row for row in run[0]["peers"]}
    assert set(peers) == {"headrace", "celery"}
    for row in peers.values():
        assert set(row["jobs_per_second"]) == {"logistic", "forest", "boosting"}
        assert all(rate > 0 for rate in row["jobs_per_second"].values())
        assert row["submits_per_second"]["single"] > 0
        assert row["round_trip_ms"]["p50"] <= row["round_trip_ms"]["p99"]
        assert row["versions"]


def test_boosters_are_measured_beside_plain_celery(run: tuple[dict[str, Any], str]) -> None:
    rates = {row["name"]: row["jobs_per_second"] for row in run[0]["boosters"]["peers"]}
    assert rates.keys() == {"headrace", "celery"}
    targets = {row["target"]: row["measured"] for row in run[0]["targets"]}
    for name, title in BOOSTERS.items():
        ratio = rates["headrace"][name] / rates["celery"][name]
        assert targets[f"jobs/s, {title}, relative to the best plain Celery"] == pytest.approx(ratio)


def test_a_peer_that_cannot_run_is_listed_with_the_reason(run: tuple[dict[str, Any], str]) -> None:
    (peer,) = run[0]["left_out"]
    assert peer["name"] == "mayu"
    assert "/no/such/python" in peer["reason"]


def test_each_target_is_evaluated_or_reported_as_not_measured(run: tuple[dict[str, Any], str]) -> None:
    for row in run[0]["targets"]:
        assert (row["measured"] is None) == (row["met"] is None) == (row["text"] == "not measured")
    memory = next(row for row in run[0]["targets"] if "memory" in row["target"])
    assert memory["measured"] is not None
    telemetry = next(row for row in run[0]["targets"] if "OpenTelemetry" in row["target"])
    assert telemetry["text"].endswith(" %")
    assert run[0]["telemetry_cost"]["share_of_off"].keys() == {"on", "logged"}


def test_the_output_names_the_machine_and_the_peers(run: tuple[dict[str, Any], str]) -> None:
    assert "appendfsync everysec" in run[1]
    assert "Celery" in run[1]
    assert "left out:" in run[1]


def test_the_page_of_pool_replacements_shows_the_stored_results(tmp_path: Path) -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "swap.json").read_text())
    page = tmp_path / "swapping.md"
    page.write_text(before := (ROOT / "docs" / "swapping.md").read_text())
    pool_replacement_page.write_into(page, results)
    assert page.read_text() == before


@pytest.mark.long
def test_pool_replacements_are_measured_under_load_without_a_failed_job() -> None:
    command = [sys.executable, "-m", "benchmarks.pool_replacement", "--replacements", "1", "--commands", "1"]
    command += ["--seconds", "1", "--megabytes", "2", "--large-megabytes", "2", "--pool", "2"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert completed.returncode == 0, completed.stderr[-2000:]
    results = json.loads(completed.stdout)
    assert results["jobs"] > 100
    rows = {row[0]: row for row in pool_replacement_page.targets(results)}
    assert rows["failed jobs"][2:] == ["0", "yes"]
    (replacement,) = results["every_replacement"]
    assert 0 < replacement["seconds_to_first_answer"] <= replacement["seconds_to_only_new_answers"]


def test_the_page_of_benchmarks_takes_results_between_its_marks(
    run: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    report.write_into(page, run[0], "chart.svg")
    text = page.read_text()
    report.write_into(page, run[0], "chart.svg")
    assert page.read_text() == text
    assert "| Headrace |" in text
    assert text.startswith("# Benchmarks")
