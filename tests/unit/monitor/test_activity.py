"""Tests of the activity counted from events: rates, times, workers and failures."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from headrace.monitor.activity import WINDOW_SECONDS, Activity
from headrace.wire.message import new_id, submission_time


def encode_events(*events: dict[str, Any], group: bool = True) -> bytes:
    body = json.dumps(list(events) if group else events[0]).encode()
    return json.dumps({"body": base64.b64encode(body).decode(), "headers": {}}).encode()


def finished_event(kind: str = "task-succeeded", seconds: float = 0.04, **fields: Any) -> dict[str, Any]:
    job = new_id()
    submitted = submission_time(job)
    assert submitted is not None
    timestamp = submitted.timestamp() + seconds
    return {"type": kind, "uuid": job, "hostname": "w@host", "timestamp": timestamp, **fields}


def test_rates_and_times_are_computed_by_model_over_the_window():
    activity = Activity(0)
    for second in range(5, 15):
        good = [finished_event(model="churn") for _ in range(8)]
        slow = [
            finished_event(model="churn", seconds=2.0),
            finished_event(model="iris"),
        ]
        activity.record(encode_events(*good, *slow), second)
    churn, iris = activity.models(14.5)
    assert (churn.model, churn.succeeded_per_second) == ("churn", 9.0)
    assert (iris.model, iris.succeeded_per_second) == ("iris", 1.0)
    assert churn.p50_ms == pytest.approx(40, abs=1)
    assert churn.p95_ms == pytest.approx(2000, abs=1)
    assert activity.models(14 + 2 * WINDOW_SECONDS) == []


def test_a_failure_counts_for_the_model_of_its_event_and_that_of_an_ordinary_task_for_none():
    activity = Activity(0)
    failed = finished_event("task-failed", exception="ValueError: no", model="churn", version="3")
    activity.record(encode_events(failed, finished_event("task-failed", exception="KeyError: no")), 2)
    errors = {(error.model, error.error, error.count) for error in activity.errors(2)}
    assert errors == {("churn", "ValueError: no", 1), ("", "KeyError: no", 1)}


def test_a_worker_is_alive_while_its_heartbeats_arrive():
    activity = Activity(0)
    heartbeat = {
        "type": "worker-heartbeat",
        "hostname": "w@host",
        "active": 2,
        "processed": 7,
        "loadavg": [0.5, 0, 0],
    }
    activity.record(encode_events(heartbeat, group=False), 1)
    activity.record(encode_events(finished_event(model="churn")), 2)
    (worker,) = activity.workers(3)
    assert (worker.worker, worker.alive, worker.load) == ("w@host", True, 0.5)
    assert (worker.active_claims, worker.processed_claims) == (2, 7)
    assert worker.jobs_per_second == pytest.approx(1 / 3)
    assert not activity.workers(20)[0].alive
    activity.record(encode_events({"type": "worker-offline", "hostname": "w@host"}), 21)
    assert activity.workers(21) == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"{}",
        b'{"body":"!"}',
        b'{"body":"e30="}',
        b'{"body":"W10="}',
        encode_events({"type": 7}),
        b"[" * 100_000,
    ],
)
def test_a_message_that_is_not_an_event_is_ignored(garbage: bytes):
    activity = Activity(0)
    activity.record(garbage, 1)
    assert activity.models(1) == []


def test_a_claim_keeps_one_process_busy_however_many_jobs_it_has():
    activity = Activity(0)
    claim = [finished_event(model="churn", runtime=3.0) for _ in range(64)]
    activity.record(encode_events(*claim), 5)
    activity.record(encode_events(finished_event("task-failed", model="churn", runtime=2.0)), 6)
    activity.record(encode_events(finished_event(model="iris", runtime=None)), 6)
    churn, iris = activity.models(10)
    assert (churn.busy_processes, iris.busy_processes) == (0.5, 0.0)


def test_the_window_is_as_long_as_it_is_asked_for():
    activity = Activity(0, window=60)
    activity.record(encode_events(finished_event(model="churn")), 1)
    (churn,) = activity.models(50)
    assert churn.succeeded_per_second == 1 / 50


def test_jobs_of_a_bulk_run_are_counted_apart_from_those_of_its_model():
    activity = Activity(0)
    chunk = finished_event(model="churn", queue="bulk.churn", runtime=4.0)
    activity.record(encode_events(chunk, finished_event(model="churn", runtime=0.5)), 2)
    bulk, jobs = activity.models(2)
    assert (bulk.model, bulk.busy_processes, jobs.model, jobs.busy_processes) == ("bulk.churn", 2.0, "churn", 0.25)
