"""The suite of bulk runs runs, compares every prediction, and writes its results. No duration is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.bulk import targets
from benchmarks.bulk.__main__ import main
from benchmarks.bulk.models import MODELS
from benchmarks.bulk.outputs import WrongOutput, check_equal, read_predictions
from benchmarks.bulk.page import PAGE
from benchmarks.bulk.tables import KEY, make_table, write_parquet
from tests.support import ROOT

#: The first test waits for the run.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the suite with small sizes; return its results."""
    out = tmp_path_factory.mktemp("bulk") / "results.json"
    command = [
        sys.executable,
        "-m",
        "tests.support.forking_program",
        "benchmarks.bulk",
        "--short",
        "--out",
        str(out),
    ]
    command += ["--ways", "headrace,pyarrow,ray", "--only", "comparison", "--environment", "ray=/no/such/python"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert completed.returncode == 0, completed.stderr[-2000:]
    answer: dict[str, Any] = json.loads(out.read_text())
    return answer


def test_every_way_has_its_numbers(results: dict[str, Any]) -> None:
    ways = {row["name"]: row["models"] for row in results["comparison"]["ways"]}
    assert ways.keys() == {"headrace", "pyarrow"}
    for models in ways.values():
        assert models.keys() == MODELS.keys()
        for numbers in models.values():
            assert numbers["rows_per_second"] > 0
            assert numbers["cpu_us_per_row"] >= 0
            assert numbers["megabytes"] > 0
    assert all(numbers["of_limit"] == 1 for numbers in ways["pyarrow"].values())


def test_a_bulk_run_is_compared_with_the_limit(results: dict[str, Any]) -> None:
    measured = [row["measured"] for row in results["targets"] if "two in-process processes" in row["target"]]
    assert len(measured) == len(MODELS)
    assert all(ratio > 0 for ratio in measured)


def test_a_way_that_cannot_run_is_listed_with_the_reason(results: dict[str, Any]) -> None:
    (way,) = results["comparison"]["left_out"]
    assert way["name"] == "ray"
    assert "/no/such/python" in way["reason"]


def test_each_target_is_evaluated_or_reported_as_not_measured(results: dict[str, Any]) -> None:
    assert len(results["targets"]) == len(targets.TARGETS)
    for row in results["targets"]:
        assert (row["measured"] is None) == (row["met"] is None) == (row["text"] == "not measured")


def test_the_page_takes_results_between_its_marks(results: dict[str, Any], tmp_path: Path) -> None:
    copy = tmp_path / "bulk.md"
    copy.write_text((ROOT / "docs" / "bulk-benchmarks.md").read_text())
    PAGE.write_into(copy, results)
    text = copy.read_text()
    PAGE.write_into(copy, results)
    assert copy.read_text() == text
    assert "| in process, pyarrow, 2 processes |" in text
    assert "| Headrace, bulk run |" in text
    assert "- Ray Data, map_batches:" in text


def write_part(folder: Path, name: str, keys: list[int], predictions: list[int]) -> None:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({KEY: keys, "prediction": predictions}), folder / name)


def test_predictions_are_read_in_the_order_of_the_rows(tmp_path: Path) -> None:
    write_part(tmp_path, "b.parquet", [2, 0], [7, 5])
    write_part(tmp_path, "a.parquet", [1], [6])
    assert read_predictions(tmp_path).tolist() == [5, 6, 7]
    check_equal(tmp_path, np.array([5, 6, 7]))


@pytest.mark.parametrize(
    ("keys", "predictions", "message"),
    [
        ([0, 1, 1], [5, 6, 6], "3 rows, of which 2 differ"),
        ([0, 2], [5, 7], "2 rows, of which 2 differ"),
        ([0, 1], [5, 6], "2 rows instead of 3"),
        ([0, 1, 2], [5, 6, 8], "1 other predictions"),
    ],
)
def test_a_lost_doubled_or_wrong_row_of_a_way_is_refused(
    keys: list[int], predictions: list[int], message: str, tmp_path: Path
) -> None:
    write_part(tmp_path, "a.parquet", keys, predictions)
    with pytest.raises(WrongOutput, match=message):
        check_equal(tmp_path, np.array([5, 6, 7]))


def test_a_table_is_the_same_in_any_number_of_files(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "table", "mixed", 50, files=2, group_rows=10)
    files = [pq.ParquetFile(file) for file in sorted(folder.iterdir())]
    assert [file.num_row_groups for file in files] == [3, 3]
    assert pa.concat_tables([file.read() for file in files])[KEY].to_pylist() == list(range(50))
    assert files[1].read().equals(make_table("mixed", 25, 25))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "comparisons"], "unknown measurements comparisons"),
        (["--ways", "pyarrow,spark"], "unknown ways spark"),
        (["--ways", "headrace"], "pyarrow cannot be left out"),
    ],
)
def test_a_mistyped_option_is_refused_before_anything_is_measured(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks.bulk", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err
