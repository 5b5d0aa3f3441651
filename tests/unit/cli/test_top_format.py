"""`headrace top` fits the terminal it is shown on, and shows nothing that would upset it."""

from __future__ import annotations

import re

import msgspec
import pytest

from headrace.cli.top_format import away, page
from headrace.inspection.queues import QueueDepth
from headrace.monitor.activity import ErrorCount, ModelActivity, WorkerActivity
from headrace.monitor.overview import Overview

SEEN = Overview(
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


def shown(seen: Overview, columns: int = 120) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in page(seen, "127.0.0.1:6379/0", columns=columns)]


def words(line: str) -> str:
    return " ".join(line.split())


def test_everything_is_on_a_wide_terminal():
    told = shown(SEEN)
    assert told[0] == "headrace top  00:00:00 UTC  127.0.0.1:6379/0"
    assert told[1] == "1,234 jobs/s  0.5 failed/s  40,012 waiting  256 leased  0 delayed  1 dead letter"
    assert words(told[3]) == "MODEL WAITING OLDEST LEASED DELAYED AGAIN JOBS/S FAILED/S RETRIED/S P50 P95"
    assert words(told[4]) == "churn 40,012 1 min 15 s 256 0 0 1,234 0.5 0 12.3 ms -"
    assert told[5].startswith("iris")  # the longest queue first
    assert words(told[8]) == "w@host up 2 1,234 1.2 800 ms ago"
    assert "GONE" in told[9]
    assert told[-1].endswith("ValueError: \\x1b[2Jgone")


@pytest.mark.parametrize("columns", [1, 10, 20, 40, 60, 80, 100, 300])
def test_no_line_is_longer_than_the_terminal_is_wide(columns: int):
    assert all(len(line) <= columns for line in shown(SEEN, columns))
    assert all(len(line) <= columns + 20 for line in away("a" * 500, columns))  # with its colour


def test_a_narrow_terminal_keeps_what_matters_most():
    assert shown(SEEN, 40)[1:4] == [
        "1,234 jobs/s  0.5 failed/s",
        "40,012 waiting  256 leased  0 delayed",
        "1 dead letter",
    ]
    assert shown(SEEN, 40)[5].split() == ["MODEL", "WAITING", "OLDEST", "JOBS/S", "P95"]
    assert shown(SEEN, 25)[7].split() == ["MODEL", "WAITING", "JOBS/S"]


def test_who_may_not_listen_or_count_is_told_the_rest():
    told = shown(msgspec.structs.replace(SEEN, models=None, workers=(), errors=(), dead_letters=None))
    assert told[1] == "40,012 waiting  256 leased  0 delayed"
    assert told[-1] == "workers: not to be told: this user may not listen to events"


def test_an_empty_redis_says_what_is_missing():
    nothing = Overview(
        unix_seconds=0, queues=(), oldest_wait_seconds={}, models=(), workers=(), errors=(), dead_letters=0
    )
    told = shown(nothing)
    assert "no model has a queue yet: a worker that serves one publishes it" in told
    assert told[-1] == "workers: no worker is heard"
