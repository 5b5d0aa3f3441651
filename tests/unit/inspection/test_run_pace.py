"""The pace of a bulk run: what is done, what is left, and how long it stands still."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.bulk import make_run
from headrace.inspection.run_pace import RunPace, measure_pace
from headrace.wire.bulk import RunProgress

NOW = 1_700_000_000_000


def pace(state: Any = "running", **fields: Any) -> RunPace:
    run = make_run("churn", "in:a.parquet", "out:scores", name="nightly")
    return measure_pace(RunProgress(run=run, state=state, submitted_ms=NOW - 60_000, **fields), NOW)


def test_the_time_left_follows_from_the_rows_read_since_the_start():
    half = pace(
        started_ms=NOW - 50_000, chunks=10, rows=1000, chunks_done=1, rows_done=200, receipt_ms=NOW - 7_000
    )
    assert half == RunPace(share=0.2, rows_per_second=4.0, remaining_seconds=200.0, idle_seconds=7.0)


def test_chunks_are_the_measure_where_rows_are_not_counted_beforehand():
    uncounted = pace(started_ms=NOW - 10_000, chunks=4, chunks_done=1, rows_done=50)
    assert (uncounted.share, uncounted.rows_per_second, uncounted.remaining_seconds) == (0.25, 5.0, 30.0)


@pytest.mark.parametrize(
    "fields", [{}, {"started_ms": NOW}, {"started_ms": NOW + 9_000, "chunks": 4}, {"started_ms": NOW, "rows": 0}]
)
def test_a_run_without_progress_has_no_rate_and_no_time_left(fields: dict[str, Any]):
    nothing = pace(**fields)
    assert (nothing.share or 0.0, nothing.rows_per_second, nothing.remaining_seconds) == (0.0, None, None)


@pytest.mark.parametrize("state", ["success", "failure", "cancelled"])
def test_an_ended_run_is_not_idle_and_its_rate_is_that_of_its_time(state: str):
    fields = {"started_ms": NOW - 50_000, "ended_ms": NOW - 40_000, "rows": 300, "rows_done": 100, "chunks": 3}
    ended_run = pace(state, **fields)
    assert (ended_run.rows_per_second, ended_run.remaining_seconds, ended_run.idle_seconds) == (10.0, None, None)
    assert ended_run.share == (1.0 if state == "success" else pytest.approx(1 / 3))


def test_a_run_is_idle_since_its_last_receipt_or_since_it_was_started_or_submitted():
    assert pace("planning").idle_seconds == 60.0
    assert pace(started_ms=NOW - 30_000).idle_seconds == 30.0
    assert pace(started_ms=NOW - 30_000, receipt_ms=NOW - 50_000).idle_seconds == 30.0  # it was resumed
