"""The plan of workers: arrivals and rates from what was counted, and no number where nothing was measured."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headrace.catalog.workers import WorkerStatus
from headrace.inspection.queues import QueueDepth
from headrace.monitor.activity import ModelActivity
from headrace.monitor.overview import Overview
from headrace.monitor.plan import Assumptions, ModelPlan, plan_models

TWO_WORKERS = {"churn": [WorkerStatus(versions=("1",), processes=4), WorkerStatus(versions=("1",), processes=2)]}


def overview(seconds: float, waiting: int = 0, activity: ModelActivity | None = None, **depth: Any) -> Overview:
    queue = QueueDepth(model="churn", queue="predict.churn", by_priority={0: waiting}, **depth)
    return Overview(
        unix_seconds=seconds,
        queues=(queue,),
        oldest_wait_seconds={},
        models=() if activity is None else (activity,),
        workers=(),
        errors=(),
        dead_letters=0,
    )


def activity(**numbers: float) -> ModelActivity:
    fields = {"failed_per_second": 0.0, "retried_per_second": 0.0, **numbers}
    return ModelActivity(model="churn", p50_ms=None, p95_ms=None, **fields)


def plan(before: Overview, after: Overview, workers: Any = TWO_WORKERS, **assumptions: Any) -> ModelPlan:
    (item,) = plan_models(before, after, workers, Assumptions(**{"wait": 5.0, **assumptions}))
    return item


def test_arrivals_are_the_jobs_that_ended_and_those_by_which_the_queue_grew() -> None:
    counted = activity(
        succeeded_per_second=8.0, failed_per_second=1.0, retried_per_second=0.5, revoked_per_second=0.5,
        busy_processes=3.0,
    )  # fmt: skip
    item = plan(overview(100, 50, leased=10), overview(110, 140, counted, due=15, leased=5))
    assert item.arrivals_per_second == 10 + 10
    assert item.rate_per_process == 9 / 3
    assert (item.backlog, item.workers, item.processes_per_worker) == (160, 2, 3)
    assert item.processes_needed == 11  # 160 jobs in 5 s at 3 a second
    assert item.workers_needed == 4


def test_a_queue_that_shrinks_by_what_ended_has_no_arrivals() -> None:
    item = plan(overview(100, 100), overview(110, 0, activity(succeeded_per_second=9.9, busy_processes=2.0)))
    assert item.arrivals_per_second == 0
    assert (item.processes_needed, item.workers_needed) == (0, 0)


def test_where_no_job_ended_the_rate_and_what_follows_from_it_are_not_measured() -> None:
    item = plan(overview(100, 10), overview(110, 20))
    assert (item.arrivals_per_second, item.rate_per_process) == (1.0, None)
    assert (item.processes_needed, item.workers_needed) == (None, None)
    assert plan(overview(100), overview(110)).processes_needed == 0, "a silent model needs none, at any rate"


def test_who_may_not_listen_measures_nothing() -> None:
    deaf = msgspec.structs.replace(overview(110, 20), models=None)
    item = plan(overview(100, 10), deaf)
    assert (item.arrivals_per_second, item.rate_per_process, item.processes_needed) == (None, None, None)
    assert item.backlog == 20


def test_given_numbers_replace_what_was_measured_and_need_no_time() -> None:
    now = overview(100, 500)
    numbers = {"arrivals_per_second": 300.0, "rate_per_process": 100.0}
    item = plan(now, now, {"churn": []}, **numbers, processes_per_worker=2)
    assert (item.workers, item.processes_needed, item.workers_needed) == (0, 4, 2)
    assert plan(now, now, {"churn": []}, **numbers).workers_needed is None, (
        "no worker says how many processes it has"
    )


def test_workers_of_an_older_release_do_not_count_in_the_processes_of_a_worker() -> None:
    workers = {"churn": [WorkerStatus(versions=("1",)), WorkerStatus(versions=("1",), processes=4)]}
    item = plan(overview(100), overview(110), workers)
    assert (item.workers, item.processes_per_worker) == (2, 4)


def test_a_pause_changes_the_backlog_and_not_the_arrivals() -> None:
    from headrace.catalog.pauses import Pause

    item = plan(overview(100, 10), overview(110, 30, leased=2, paused=Pause(by="ann", at_ms=1)))
    assert (item.backlog, item.arrivals_per_second) == (2, pytest.approx(2.2))


def test_a_model_that_was_published_meanwhile_has_no_arrivals_yet() -> None:
    before = msgspec.structs.replace(overview(100), queues=())
    assert plan(before, overview(110, 10)).arrivals_per_second is None


def test_the_chunks_of_a_bulk_run_do_not_change_the_plan_of_its_model():
    before, after = (
        overview(0.0, waiting=0),
        overview(10.0, waiting=100, activity=activity(succeeded_per_second=5.0)),
    )
    bulk = QueueDepth(model="churn", queue="bulk.churn", by_priority={9: 20_000}, leased=4)
    with_runs = [msgspec.structs.replace(item, queues=(*item.queues, bulk)) for item in (before, after)]
    assert plan_models(*with_runs, TWO_WORKERS, Assumptions(wait=5.0)) == [plan(before, after)]
