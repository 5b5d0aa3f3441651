"""The content of the Queues page: the backlog of each queue, and the wait that follows from it."""

from __future__ import annotations

from headrace.catalog.pauses import Pause
from headrace.inspection.queues import QueueDepth
from headrace.monitor.activity import ModelActivity
from headrace.monitor.overview import Overview
from headrace_worker.dashboard.queue_page import Queue, queue_page


def show(depth: QueueDepth, jobs_per_second: float | None) -> Queue:
    """Return the row of a queue whose model finishes so many jobs; None where the user may not read events."""
    activity = ModelActivity(
        model="churn",
        succeeded_per_second=jobs_per_second or 0.0,
        failed_per_second=0.0,
        retried_per_second=0.0,
        p50_ms=None,
        p95_ms=None,
    )
    overview = Overview(
        unix_seconds=0,
        queues=(depth,),
        oldest_wait_seconds={},
        models=None if jobs_per_second is None else (activity,),
        workers=(),
        errors=(),
        dead_letters=0,
    )
    return queue_page(overview).queues[0]


DEPTH = QueueDepth(
    model="churn", queue="predict.churn", by_priority={0: 20, 9: 30}, isolated=5, due=10, delayed=99, leased=35
)


def test_the_predicted_wait_is_the_backlog_over_the_jobs_that_finish() -> None:
    row = show(DEPTH, 4.0)
    assert (row.backlog, row.predicted_wait_seconds) == (100, 25.0)


def test_without_a_rate_or_while_paused_no_wait_is_predicted() -> None:
    paused = QueueDepth(
        model="churn", queue="predict.churn", by_priority={0: 20}, leased=2, paused=Pause(by="ann", at_ms=1)
    )
    assert show(DEPTH, 0.0).predicted_wait_seconds is None
    assert show(DEPTH, None).predicted_wait_seconds is None
    assert (show(paused, 4.0).backlog, show(paused, 4.0).predicted_wait_seconds) == (2, None)


def test_the_queue_of_bulk_runs_has_the_rate_of_its_chunks() -> None:
    bulk = QueueDepth(model="churn", queue="bulk.churn", by_priority={9: 20})
    assert (show(bulk, 4.0).jobs_per_second, show(bulk, 4.0).predicted_wait_seconds) == (0.0, None)
