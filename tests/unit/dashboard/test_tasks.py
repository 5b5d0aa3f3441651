"""The fields of a job that Flower stores: its attempts and wait, and the terms of the search for it."""

from __future__ import annotations

from typing import Any

import pytest
from flower.utils.search import QuerySyntaxError

from headrace.wire.bulk import BULK_TASK
from headrace_worker.dashboard.last_hour import LastHour
from headrace_worker.dashboard.tasks import JobsState, format_wait
from tests.support.flower_tasks import SUBMITTED, job_id, send


def matches(state: JobsState, query: str, **options: Any) -> list[str]:
    ids: list[str] = state.search_engine.search(state.tasks, query, **options).task_ids
    return ids


def test_the_wait_counts_from_the_submission_or_from_the_replay(state: JobsState) -> None:
    first = send(state, "received", job_id(1), SUBMITTED + 0.25, retries=0, runs=1)
    assert first.wait == pytest.approx(0.25, abs=1e-5)
    replayed = send(
        state, "received", job_id(1), SUBMITTED + 7200, retries=0, runs=1, waiting_since=SUBMITTED + 7199
    )
    assert replayed.wait == pytest.approx(1, abs=1e-5)
    assert send(state, "received", "an-id-of-its-own", SUBMITTED).wait is None


def test_waits_sort_as_numbers(state: JobsState) -> None:
    for number, seconds in enumerate((0.9, 12.0, 0.05, 100.0)):
        send(state, "received", job_id(number), SUBMITTED + seconds, retries=0)
    send(state, "received", "unknown", SUBMITTED)
    ordered = matches(state, "", sort_by="wait")
    assert ordered == ["unknown", job_id(2), job_id(0), job_id(1), job_id(3)]
    assert matches(state, "", sort_by="wait", descending=True, limit=2) == [job_id(3), job_id(1)]
    assert [format_wait(seconds) for seconds in (0.05, 7200.0)] == ["50\xa0ms", "7,200.0\xa0s"]


def test_attempts_are_runs(state: JobsState) -> None:
    job = send(state, "received", job_id(1), retries=1, runs=2)
    assert job.attempts == 2
    assert send(state, "retried", job_id(1), runs=2, exception="OSError: no").attempts == 2
    assert send(state, "failed", job_id(2), exception="InvalidInput: no", runs=0, reason="bad input").attempts == 0
    assert send(state, "received", job_id(3), retries=1).attempts == 2  # of a worker that sends no `runs`


def test_tasks_are_found_by_model_version_error_and_reason(state: JobsState) -> None:
    send(state, "failed", job_id(1), exception="ValueError: no", reason="bad input")
    send(state, "failed", job_id(2), exception="OSError: no", reason="crash", version="30", model="churn-eu")
    send(state, "succeeded", job_id(3), result="churn@3, 1 instance")
    assert matches(state, "model:churn") == [job_id(3), job_id(1)]
    assert matches(state, "version:3 state:FAILURE") == [job_id(1)]
    assert matches(state, "model:CHURN-EU OR error:valueerr") == [job_id(2), job_id(1)]
    assert matches(state, 'reason:"bad input"') == [job_id(1)]
    assert matches(state, "reason:crash version:3") == []
    with pytest.raises(QuerySyntaxError, match="at least 3"):
        matches(state, "error:ab")


def test_the_reason_of_an_earlier_failure_is_not_that_of_a_job_that_was_replayed(state: JobsState) -> None:
    send(state, "failed", job_id(1), exception="OSError: no", reason="crash")
    assert send(state, "succeeded", job_id(1), SUBMITTED + 9, result="churn@3, 1 instance").reason is None
    assert matches(state, "reason:crash") == []


def test_jobs_are_counted_for_the_charts_and_tasks_of_other_kinds_are_not(state: JobsState) -> None:
    state.last_hour = LastHour(lambda: 6_000_000.0)
    send(state, "received", job_id(1), SUBMITTED + 0.25, retries=0)
    send(state, "succeeded", job_id(1), result="churn@3, 1 instance")
    send(state, "failed", job_id(2), exception="ValueError: no", version="4")
    send(state, "failed", "nightly:7", exception="ValueError: no", name=BULK_TASK)
    hour = state.last_hour.read("churn")
    assert (hour.failed[-1], hour.jobs_per_second[-1]) == (1, 2.0)
    assert hour.wait_p50[-1] == pytest.approx(0.25, abs=1e-5)
    assert state.last_hour.versions("churn") == ["4", "3"]


def test_the_store_holds_no_more_tasks_and_documents_than_its_limit(state: JobsState) -> None:
    for number in range(1000):
        send(state, "received", job_id(number), SUBMITTED + number, retries=0)
        send(state, "succeeded", job_id(number), SUBMITTED + number, result="churn@3, 1 instance")
    assert len(state.tasks) == 100
    assert len(state.search_engine.documents) == 100
    assert matches(state, "model:churn", limit=1) == [job_id(999)]
