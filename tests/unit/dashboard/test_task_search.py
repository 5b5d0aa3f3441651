"""The pages of the Tasks page: each column in both orders, near either end, and what a stored job takes."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from celery.events.state import Task

from headrace.wire.queues import TASK
from headrace_worker.dashboard.stored_job import DashboardJob
from headrace_worker.dashboard.task_index import SORT_ATTRIBUTES
from headrace_worker.dashboard.tasks import JobsState
from tests.support.flower_tasks import SUBMITTED, job_id, send


@pytest.fixture
def filled(state: JobsState) -> JobsState:
    """Return a store of 90 jobs, whose columns have equal values and gaps."""
    chosen = random.Random(3)
    for number in range(90):
        moment = SUBMITTED + chosen.randrange(20)
        fields = {"model": chosen.choice(("churn", "fraud")), "version": str(chosen.randrange(1, 12))}
        send(
            state,
            "received",
            job_id(number),
            moment,
            retries=0,
            args=f"churn@3, {number % 3 + 1} instances",
            **fields,
        )
        if number % 3:
            send(state, "succeeded", job_id(number), moment + 1, runtime=chosen.random(), **fields)
    return state


def rows(state: JobsState, sort_by: str | None, **options: Any) -> list[str]:
    ids: list[str] = state.search_engine.search(state.tasks, "", sort_by=sort_by, **options).task_ids
    return ids


@pytest.mark.parametrize("sort_by", [*SORT_ATTRIBUTES, None, "no such column"])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_together_are_the_whole_order(filled: JobsState, sort_by: str | None, descending: bool) -> None:
    whole = rows(filled, sort_by, descending=descending)
    pages = [rows(filled, sort_by, descending=descending, offset=start, limit=4) for start in range(0, 100, 4)]
    assert list(itertools.chain(*pages)) == whole
    assert len(set(whole)) == 90


def test_the_descending_order_is_the_ascending_one_from_its_end(filled: JobsState) -> None:
    for sort_by in SORT_ATTRIBUTES:
        assert rows(filled, sort_by, descending=True) == rows(filled, sort_by)[::-1]


def test_versions_sort_as_numbers_and_a_missing_runtime_comes_first(filled: JobsState) -> None:
    versions = [int(filled.tasks[job].version) for job in rows(filled, "version")]
    assert versions == sorted(versions)
    runtimes = [filled.tasks[job].runtime for job in rows(filled, "runtime")]
    assert runtimes == [None] * 30 + sorted(filter(None, runtimes))


def test_tasks_are_filtered_as_flowers_api_does(filled: JobsState) -> None:
    search = filled.search_engine.search
    assert search(filled.tasks, state="SUCCESS").filtered_count == 60
    assert search(filled.tasks, task_type=TASK, worker="w@h").filtered_count == 90
    assert search(filled.tasks, worker="other@h").filtered_count == 0
    early = search(filled.tasks, received_start=SUBMITTED, received_end=SUBMITTED + 4).task_ids
    assert {filled.tasks[job].received <= SUBMITTED + 4 for job in early} == {True}
    assert search(filled.tasks, job_id(7)[-12:]).task_ids == [job_id(7)]
    assert search(filled.tasks, "instances").filtered_count == 90
    assert search(filled.tasks, "worker:w@h (model:churn OR model:fraud)").filtered_count == 90


def test_jobs_that_a_worker_started_together_are_found(state: JobsState) -> None:
    for number, (moment, worker) in enumerate([(5, "w@h"), (5, "w@h"), (5, "other@h"), (6, "w@h")]):
        send(state, "started", job_id(number), SUBMITTED + moment, hostname=worker)
    send(state, "received", job_id(9))
    assert state.search_engine.find_started_with(job_id(0)) == [job_id(1)]
    assert state.search_engine.find_started_with(job_id(9)) == []
    assert state.search_engine.find_started_with("unknown") == []


def test_a_job_takes_events_in_any_order_as_celerys_task_does() -> None:
    events = [
        ("received", 1.0, {"name": TASK, "args": "churn@3, 1 instance", "retries": 0, "root_id": "a", "clock": 1}),
        ("started", 2.0, {"clock": 2}),
        ("retried", 3.0, {"exception": "OSError: no", "clock": 3}),
        ("succeeded", 4.0, {"result": "churn@3, 1 instance", "runtime": 0.5, "clock": 4}),
    ]
    for order in itertools.permutations(events):
        ours, celerys = DashboardJob("a"), Task("a")
        for kind, moment, fields in order:
            ours.event(kind, moment, moment, dict(fields))
            celerys.event(kind, moment, moment, dict(fields))  # type: ignore[no-untyped-call]  # celery's
        names = ("state", "received", "started", "retried", "succeeded", "result", "runtime", "args", "retries")
        assert [getattr(ours, name) for name in names] == [getattr(celerys, name) for name in names]


def test_a_stored_job_takes_no_dictionary_and_celerys_indexes_stay_empty(filled: JobsState) -> None:
    for job in filled.tasks.data.values():
        assert job.__dict__ == {}
        assert job._children is None  # where it would lie
    assert len(filled._taskheap) <= 2  # as above
    assert len(filled.tasks_by_type) == len(filled.tasks_by_worker) == 0
    documents = filled.search_engine.documents.values()
    assert len({id(document.all_text) for document in documents}) <= 6


def test_a_stored_job_is_shown_and_saved_with_its_fields(state: JobsState) -> None:
    job = send(state, "received", job_id(1), retries=0, args="churn@3, 2 instances", root_id=job_id(1))
    fields = job.as_dict()
    assert (fields["model"], fields["instances"], fields["root"], fields["children"]) == (
        "churn",
        2,
        job_id(1),
        [],
    )
    rebuild, (kind, saved) = job.__reduce__()
    restored = rebuild(kind, saved)
    assert (restored.model, restored.received, restored.attempts) == ("churn", SUBMITTED, 1)
