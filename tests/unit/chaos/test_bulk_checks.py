"""The checks of the scenarios of bulk runs report rows and chunks that are not as they should be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chaos.bulk_model import DEED, KEY, NUMBER, Call, read_calls
from tests.chaos.bulk_site import CHUNK_ROWS, BulkSite, called_after_receipt, count_again, digests


def call(chunk: int, started_at: float = 0.0, rows: int = CHUNK_ROWS) -> Call:
    return Call(pid=1, started_at=started_at, first=chunk * CHUNK_ROWS, rows=rows)


def test_calls_beyond_the_first_of_each_chunk_are_counted() -> None:
    assert count_again([call(0), call(1), call(0), call(2), call(0)]) == 2


def test_a_call_after_the_receipt_of_its_chunk_is_reported() -> None:
    calls = [call(0, 1.0), call(1, 2.0), call(1, 9.0), call(2, 9.0)]
    assert called_after_receipt(calls, {0: 1.5, 1: 3.0}) == [1]


def test_the_record_of_calls_leaves_out_the_example_and_a_line_that_is_not_complete(tmp_path: Path) -> None:
    file = tmp_path / "calls"
    file.write_text("7 1.5 300 100\n7 1.6 -1 2\n8 1.7 4")
    assert read_calls(file) == [Call(7, 1.5, 300, 100)]


def test_the_files_that_a_run_keeps_for_itself_are_not_compared(tmp_path: Path) -> None:
    for name in ("part-00000.parquet", "errors/part-00000.parquet", "_SUCCESS", "_headrace/manifest.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert digests(tmp_path).keys() == {"part-00000.parquet", "errors/part-00000.parquet"}


def site_with(folder: Path, rows: list[dict[str, Any]]) -> tuple[BulkSite, list[str]]:
    """Return a site of one file whose run `run` left these rows, and the list of its broken promises."""
    broken: list[str] = []
    site = BulkSite.__new__(BulkSite)
    site.files, site.outputs = 1, folder
    site.env = SimpleNamespace(expect=lambda holds, text: None if holds else broken.append(text))  # type: ignore[assignment]
    (folder / "run").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "run" / "part-00000.parquet")
    return site, broken


def right_rows() -> list[dict[str, Any]]:
    """Return a whole chunk with correct predictions, of which the second row has failed."""
    rows: list[dict[str, Any]] = [
        {KEY: key, NUMBER: float(key), DEED: 0, "prediction": 2.0 * key + 1, "error": None}
        for key in range(CHUNK_ROWS)
    ]
    rows[1] |= {NUMBER: None, "prediction": None, "error": "number is null"}
    return rows


def test_right_rows_break_no_promise(tmp_path: Path) -> None:
    site, broken = site_with(tmp_path, right_rows())
    site.expect_rows("run")
    assert broken == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(), "run has 99 rows"),
        (lambda rows: rows.append(rows[5]), "run has 101 rows"),
        (lambda rows: rows[5].update(prediction=4.0), "wrong predictions of the rows [5]"),
        (lambda rows: rows[5].update(prediction=None), "wrong predictions of the rows [5]"),
        (lambda rows: rows[5].update(error="an error"), "wrong predictions of the rows [5]"),
        (lambda rows: rows[1].update(error=None), "wrong predictions of the rows [1]"),
    ],
)
def test_a_lost_doubled_or_wrong_row_is_reported(change: Any, message: str, tmp_path: Path) -> None:
    rows = right_rows()
    change(rows)
    site, broken = site_with(tmp_path, rows)
    site.expect_rows("run")
    assert len(broken) >= 1
    assert message in broken[0]
