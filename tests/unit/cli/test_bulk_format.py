"""A run as lines of a terminal and of a log: the bar fits, the rate is that of the wait, silence is explained."""

from __future__ import annotations

import io

import msgspec
import pytest

from headrace.bulk import make_run
from headrace.bulk.progress import ChunkFailure, RunFailures
from headrace.cli.bulk_format import format_end, format_failures, format_progress, format_run
from headrace.cli.bulk_progress import RunMeter
from headrace.cli.json_objects import BulkRun
from headrace.wire.bulk import RunProgress
from tests.support.fake_clock import FakeClock

RUNNING = RunProgress(
    run=make_run("churn", "in:rows", "out:scores", name="nightly", keep=["a", "b"], max_failed=100),
    state="running",
    submitted_ms=0,
    started_ms=1000,
    chunks=100,
    chunks_done=47,
    rows=1_000_000_000,
    rows_done=470_000_000,
    rows_failed=1_234_567,
)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_bar_fits_the_terminal(width: int):
    for progress in (RUNNING, msgspec.structs.replace(RUNNING, rows=None, chunks=None)):
        line = format_progress(progress, 104_000.0, width=width)
        assert len(line) < width
    assert "47%" in format_progress(RUNNING, None, width=width)


def test_a_log_line_names_the_run_the_share_the_rate_and_the_time_left():
    line = format_progress(RUNNING, 1_000_000.0, width=None)
    assert line == ("nightly: 47%, 470,000,000 rows done, 1,234,567 failed, 1,000,000 rows/s, 8:50 left")
    assert (
        format_progress(msgspec.structs.replace(RUNNING, state="planning"), None, width=None)
        == "nightly: planning"
    )


def test_a_run_without_rows_per_file_shows_its_chunks():
    progress = msgspec.structs.replace(RUNNING, rows=None)
    assert format_progress(progress, None, width=None).startswith("nightly: 47%, 470,000,000 rows done")
    assert "  rows       470,000,000 rows (47%), 1,234,567 failed" in list(format_run(progress, 2000))


def test_options_are_shown_as_they_are_written():
    assert "  options    keep a,b, max-failed 100" in list(format_run(RUNNING, 2000))
    share = msgspec.structs.replace(RUNNING.run, keep=(), max_failed=0.015, method="predict_proba")
    lines = list(format_run(msgspec.structs.replace(RUNNING, run=share), 2000))
    assert "  options    method predict_proba, keep none, max-failed 1.5%" in lines


def test_an_end_without_a_row_has_no_rate():
    progress = msgspec.structs.replace(RUNNING, state="success", rows_done=0, rows_failed=0, ended_ms=1000)
    assert format_end(progress) == "0 rows predicted by churn in 1.0 s, 0 failed"


def test_json_has_every_field_of_the_run_and_its_progress():
    fields = {*RUNNING.run.__struct_fields__, *RUNNING.__struct_fields__} - {"run"}
    assert set(BulkRun.__struct_fields__) == fields


def test_only_the_first_failed_chunks_are_listed():
    chunks = tuple(
        ChunkFailure(chunk=str(number), job=f"nightly:{number}", reason="crash", message="gone")
        for number in range(30)
    )
    lines = list(format_failures(RunFailures(reasons={}, chunks=chunks)))
    assert lines[0] == "chunk 0 failed (crash): gone"
    assert (len(lines), lines[-1]) == (21, "... and 10 more chunks")


def test_the_rate_is_that_of_the_wait_not_of_a_run_that_stood_still_before():
    clock, stream = FakeClock(), io.StringIO()
    meter = RunMeter(stream, terminal=False, clock=clock)
    meter.show(RUNNING)
    clock.advance(6)
    meter.show(msgspec.structs.replace(RUNNING, rows_done=RUNNING.rows_done + 6000, chunks_done=48))
    meter.close()
    assert "1,000 rows/s" in stream.getvalue()


def test_silence_is_explained_once():
    clock, stream = FakeClock(), io.StringIO()
    meter = RunMeter(stream, terminal=False, clock=clock)
    for _ in range(5):
        meter.show(RUNNING)
        clock.advance(10)
    meter.close()
    assert stream.getvalue().count("run nightly: no progress for 20 s; `headrace explain nightly` says") == 1
