"""Tests of the progress meter: a line on a terminal that is redrawn, a new line every few seconds elsewhere."""

from __future__ import annotations

import io

from headrace.batch.progress import Progress, ProgressMeter, describe_progress, format_bar


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


HALF = Progress(rows=12_345, failed=3, bytes_read=500)


def test_progress_has_rows_failures_rate_and_remaining_time():
    assert describe_progress(HALF, seconds=10, size=1000) == "12,345 rows done, 3 failed, 1,234 rows/s, 0:10 left"
    assert describe_progress(HALF, seconds=3600, size=1500).endswith("2:00:00 left")
    assert describe_progress(HALF, seconds=10, size=None) == "12,345 rows done, 3 failed, 1,234 rows/s"
    assert describe_progress(Progress(), seconds=0, size=10) == "0 rows done, 0 failed, 0 rows/s"


def test_a_bar_fits_its_terminal():
    assert format_bar(HALF, seconds=10, size=1000, width=100).startswith(
        "[###############---------------]  50%  12,345 rows"
    )
    for width in range(10, 200):
        assert len(format_bar(HALF, seconds=10, size=1000, width=width)) < width


def test_a_terminal_gets_ten_drawings_a_second_on_one_line():
    clock, stream = Clock(), io.StringIO()
    meter = ProgressMeter(stream, size=1000, terminal=True, clock=clock)
    for _ in range(100):
        clock.now += 0.01
        meter.show(HALF)
    meter.close()
    assert 8 <= stream.getvalue().count("rows done") <= 10
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_without_a_terminal_there_is_a_plain_line_every_five_seconds():
    clock, stream = Clock(), io.StringIO()
    meter = ProgressMeter(stream, size=1000, terminal=False, clock=clock)
    for _ in range(21):
        clock.now += 0.5
        meter.show(HALF)
    meter.close()
    assert len(stream.getvalue().splitlines()) == 2
    assert "\x1b" not in stream.getvalue()


def test_the_question_for_a_worker_is_asked_once():
    clock, stream = Clock(), io.StringIO()
    meter = ProgressMeter(stream, size=1000, terminal=False, clock=clock)
    for _ in range(60):
        clock.now += 1
        meter.show(Progress())
    assert stream.getvalue().count("is a worker serving the model?") == 1
