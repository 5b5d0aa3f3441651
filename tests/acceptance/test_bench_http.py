"""The suite of the HTTP gateway runs, compares predictions, and writes its results. No duration is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.http import targets
from benchmarks.http.__main__ import main
from benchmarks.http.models import TITLES
from benchmarks.http.page import PAGE
from tests.support import ROOT

#: The first test waits for the run.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the suite with small sizes; return its results."""
    out = tmp_path_factory.mktemp("http") / "results.json"
    command = [
        sys.executable,
        "-m",
        "tests.support.forking_program",
        "benchmarks.http",
        "--short",
        "--out",
        str(out),
    ]
    command += ["--ways", "headrace,fastapi,fixed,mlserver", "--environment", "mlserver=/no/such/python"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert completed.returncode == 0, completed.stderr[-2000:]
    answer: dict[str, Any] = json.loads(out.read_text())
    return answer


def test_every_server_has_its_numbers(results: dict[str, Any]) -> None:
    ways = {row["name"]: row["models"] for row in results["comparison"]["ways"]}
    assert ways.keys() == {"headrace", "fastapi", "fixed"}
    for models in ways.values():
        assert models.keys() == TITLES.keys()
        for loads in models.values():
            assert loads.keys() == {"many", "single"}
            for numbers in loads.values():
                assert numbers["requests_per_second"] > 0
                assert 0 < numbers["p50_ms"] <= numbers["p99_ms"]


def test_the_processor_time_of_headrace_is_that_of_three_parts(results: dict[str, Any]) -> None:
    row = next(row for row in results["comparison"]["ways"] if row["name"] == "headrace")
    for turn in row["turns"]:
        for model in TITLES:
            measured = turn[model]["many"]
            assert measured["parts_us"].keys() == {"gateway", "worker", "redis"}
            assert measured["cpu_us"] == pytest.approx(sum(measured["parts_us"].values()))


def test_predictions_of_the_client_share_calls(results: dict[str, Any]) -> None:
    assert 1 < results["client"]["jobs_per_call"] <= results["client"]["tasks"]
    assert results["client"]["cpu_us"] > 0


def test_slow_clients_and_files_are_measured(results: dict[str, Any]) -> None:
    assert results["slow_clients"]["p99_ratios"].keys() == {"streams", "slow_requests"}
    assert results["files"]["rows_per_second"].keys() == {"batch", "command"}
    assert results["slow_clients"]["left_out"] == results["files"]["left_out"] == {}


def test_a_server_that_cannot_run_is_listed_with_the_reason(results: dict[str, Any]) -> None:
    (way,) = results["comparison"]["left_out"]
    assert way["name"] == "mlserver"
    assert "/no/such" in way["reason"]


def test_each_target_is_evaluated_or_reported_as_not_measured(results: dict[str, Any]) -> None:
    assert len(results["targets"]) == len(targets.TARGETS)
    for row in results["targets"]:
        assert (row["measured"] is None) == (row["met"] is None) == (row["text"] == "not measured")
    assert sum(row["measured"] is None for row in results["targets"]) == 2, "those that compare with MLServer"


def test_the_page_takes_results_between_its_marks(results: dict[str, Any], tmp_path: Path) -> None:
    copy = tmp_path / "http.md"
    copy.write_text((ROOT / "docs" / "http-benchmarks.md").read_text())
    PAGE.write_into(copy, results)
    text = copy.read_text()
    PAGE.write_into(copy, results)
    assert copy.read_text() == text
    assert "| FastAPI, model in process |" in text
    assert "- MLServer, a process for inference:" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "comparisons"], "unknown measurements comparisons"),
        (["--ways", "fastapi,bentoml"], "unknown ways bentoml"),
    ],
)
def test_a_mistyped_option_is_refused_before_anything_is_measured(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks.http", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err
