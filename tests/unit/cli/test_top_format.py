"""Tests of the page of `headrace top`: it fits the terminal, and contains no control characters."""

from __future__ import annotations

import re

import msgspec
import pytest

from headrace.bulk import make_run
from headrace.catalog.pauses import Pause
from headrace.cli.top_format import format_outage, format_overview
from headrace.inspection.queues import QueueDepth
from headrace.monitor.activity import ErrorCount, ModelActivity, WorkerActivity
from headrace.monitor.overview import Overview
from headrace.wire.bulk import RunProgress

OVERVIEW = Overview(
    unix_seconds=0,
    queues=(
        QueueDepth(model="iris", queue="predict.iris", by_priority={0: 0, 3: 0, 6: 0, 9: 0}),
        QueueDepth(model="churn", queue="predict.churn", by_priority={0: 12, 3: 0, 6: 0, 9: 40_000}, leased=256),
    ),
    oldest_wait_seconds={"churn": 75.0},
    models=(
        ModelActivity(
            model="churn",
            succeeded_per_second=1234.5,
            failed_per_second=0.5,
            retried_per_second=0,
            p50_ms=12.34,
            p95_ms=None,
        ),
    ),
    workers=(
        WorkerActivity(
            worker="w@host",
            alive=True,
            heartbeat_age_seconds=0.8,
            active_claims=2,
            processed_claims=9,
            load=1.25,
            jobs_per_second=1234.5,
        ),
        WorkerActivity(
            worker="v@host",
            alive=False,
            heartbeat_age_seconds=30,
            active_claims=0,
            processed_claims=9,
            load=None,
            jobs_per_second=0,
        ),
    ),
    errors=(ErrorCount(model="churn", error="ValueError: \x1b[2Jgone", count=5),),
    dead_letters=1,
)


def format_plain(overview: Overview, width: int = 120) -> list[str]:
    lines = format_overview(overview, "127.0.0.1:6379/0", width=width)
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def squeeze(line: str) -> str:
    return " ".join(line.split())


def test_a_wide_terminal_shows_all_columns():
    lines = format_plain(OVERVIEW)
    assert lines[0] == "headrace top  00:00:00 UTC  127.0.0.1:6379/0"
    assert lines[1] == "1,234 jobs/s  0.5 failed/s  40,012 waiting  256 leased  0 delayed  1 dead letter"
    assert squeeze(lines[3]) == (
        "MODEL BACKLOG WAITING OLDEST LEASED DELAYED DUE ISOLATED JOBS/S FAILED/S RETRIED/S P50 P95"
    )
    assert squeeze(lines[4]) == "churn 40,268 40,012 1 m 256 0 0 0 1,234 0.5 0 12.3 ms -"
    assert lines[5].startswith("iris")  # the longest queue first
    assert squeeze(lines[8]) == "w@host up 2 1,234 1.2 0 s ago"
    assert "LOST" in lines[9]
    assert lines[-1].endswith("ValueError: \\x1b[2Jgone")


@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 80, 100, 300])
def test_no_line_is_longer_than_the_terminal_is_wide(width: int):
    assert all(len(line) <= width for line in format_plain(OVERVIEW, width))
    assert all(len(line) <= width + 20 for line in format_outage("a" * 500, width))  # 20 for the colour


def test_a_narrow_terminal_shows_the_most_important_columns():
    assert format_plain(OVERVIEW, 40)[1:4] == [
        "1,234 jobs/s  0.5 failed/s",
        "40,012 waiting  256 leased  0 delayed",
        "1 dead letter",
    ]
    assert format_plain(OVERVIEW, 40)[5].split() == ["MODEL", "WAITING", "OLDEST", "JOBS/S", "P95"]
    assert format_plain(OVERVIEW, 25)[7].split() == ["MODEL", "WAITING", "JOBS/S"]


def test_a_user_who_may_not_listen_or_count_sees_the_rest():
    lines = format_plain(msgspec.structs.replace(OVERVIEW, models=None, workers=(), errors=(), dead_letters=None))
    assert lines[1] == "40,012 waiting  256 leased  0 delayed"
    assert lines[-1] == "workers: this user may not listen to events"


def test_an_empty_redis_has_a_page_that_says_so():
    empty = Overview(
        unix_seconds=0, queues=(), oldest_wait_seconds={}, models=(), workers=(), errors=(), dead_letters=0
    )
    lines = format_plain(empty)
    assert "no model has a queue yet: a worker that serves a model publishes it" in lines
    assert lines[-1] == "workers: no events from any worker"


def test_a_paused_model_is_marked_however_narrow_the_terminal_is():
    churn = msgspec.structs.replace(OVERVIEW.queues[1], paused=Pause(by="ann@desk", at_ms=0))
    lines = format_plain(msgspec.structs.replace(OVERVIEW, queues=(OVERVIEW.queues[0], churn)), width=40)
    models = [line.split("  ")[0] for line in lines if line.startswith(("churn", "iris"))]
    assert models[:2] == ["churn (paused)", "iris"]


def test_bulk_runs_have_a_table_that_fits():
    running = RunProgress(
        run=make_run("churn", "in:rows", "out:scores", name="nightly-29"),
        state="running",
        submitted_ms=-9000,
        started_ms=-4000,
        chunks=10,
        chunks_done=4,
        rows=1000,
        rows_done=400,
        rows_failed=2,
    )
    planning = msgspec.structs.replace(
        running, state="planning", started_ms=None, chunks=None, rows=None, rows_done=0
    )
    lines = format_plain(msgspec.structs.replace(OVERVIEW, runs=(running, planning)))
    table = lines[lines.index("") + 5 :]
    assert squeeze(table[0]) == "RUN MODEL STATE DONE ROWS FAILED ROWS/S LEFT"
    assert squeeze(table[1]) == "nightly-29 churn running 40% 400 2 100 0:06"
    assert squeeze(table[2]) == "nightly-29 churn planning - 0 2 - -"
    narrow = format_plain(msgspec.structs.replace(OVERVIEW, runs=(running,)), width=50)
    header = next(line for line in narrow if line.startswith("RUN"))
    assert header.split() == ["RUN", "STATE", "DONE", "ROWS", "FAILED", "LEFT"]
