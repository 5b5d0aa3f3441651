"""The benchmark suite runs, finds right answers, and writes what it found. No time is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

#: The first test waits for the run.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The results of a short run beside plain Celery, and what it printed."""
    out = tmp_path_factory.mktemp("bench") / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--short", "--seconds", "0.1", "--deepest", "2000"]
    # Celery is in our own environment too: nothing is downloaded here.
    command += ["--peers", "headrace,celery,mayu", "--more", "depth,telling", "--out", str(out)]
    command += ["--environment", f"main={sys.executable}", "--environment", "mayu=/no/such/python"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text()), done.stdout


def test_every_peer_has_its_numbers(run: tuple[dict[str, Any], str]) -> None:
    peers = {row["name"]: row for row in run[0]["peers"]}
    assert set(peers) == {"headrace", "celery"}
    for row in peers.values():
        assert set(row["jobs_per_second"]) == {"logistic", "forest", "boosting"}
        assert all(rate > 0 for rate in row["jobs_per_second"].values())
        assert row["submits_per_second"]["one"] > 0
        assert row["round_trip_ms"]["p50"] <= row["round_trip_ms"]["p99"]
        assert row["versions"]


def test_a_peer_that_cannot_run_is_listed_with_the_reason(run: tuple[dict[str, Any], str]) -> None:
    (absent,) = run[0]["left_out"]
    assert absent["name"] == "mayu"
    assert "/no/such/python" in absent["reason"]


def test_each_number_asked_for_is_judged_or_said_to_be_missing(run: tuple[dict[str, Any], str]) -> None:
    for target in run[0]["targets"]:
        assert (target["measured"] is None) == (target["good"] is None) == (target["shown"] == "not measured")
    memory = next(target for target in run[0]["targets"] if "memory" in target["what"])
    assert memory["measured"] is not None
    told = next(target for target in run[0]["targets"] if "OpenTelemetry" in target["what"])
    assert told["shown"].endswith(" %")
    assert run[0]["telling"]["of_off"].keys() == {"on", "logged"}


def test_what_is_printed_names_the_machine_and_who_took_part(run: tuple[dict[str, Any], str]) -> None:
    assert "appendfsync everysec" in run[1]
    assert "Celery" in run[1]
    assert "left out:" in run[1]


def test_the_page_of_swaps_says_what_was_measured(tmp_path: Path) -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "swap.json").read_text())
    page = tmp_path / "swapping.md"
    page.write_text(written := (ROOT / "docs" / "swapping.md").read_text())
    _swap_page().write_into(page, found)
    assert page.read_text() == written


@pytest.mark.long
def test_swaps_are_measured_under_load_and_fail_no_job() -> None:
    command = [sys.executable, "-m", "benchmarks.swap", "--swaps", "1", "--commands", "1", "--seconds", "1"]
    command += ["--megabytes", "2", "--large-megabytes", "2", "--pool", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["jobs"] > 100
    rows = {row[0]: row for row in _swap_page().targets(found)}
    assert rows["jobs that failed"][2:] == ["0", "yes"]
    (swap,) = found["every_swap"]
    assert 0 < swap["seconds_to_first_answer"] <= swap["seconds_to_only_new_answers"]


def _swap_page() -> Any:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import swap_page
    finally:
        sys.path.remove(str(ROOT))
    return swap_page


def test_the_page_takes_results_between_its_marks(run: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import report
    finally:
        sys.path.remove(str(ROOT))
    page = tmp_path / "benchmarks.md"
    page.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    report.write_into(page, run[0], "chart.svg")
    once = page.read_text()
    report.write_into(page, run[0], "chart.svg")
    assert page.read_text() == once
    assert "| Headrace |" in once
    assert once.startswith("# Benchmarks")
