"""What goes on is told by events: rates, times, workers and failures of the last seconds."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from headrace.monitor.activity import WINDOW_SECONDS, Activity, model_of_description
from headrace.wire.message import new_id, submission_time


def message(*events: dict[str, Any], group: bool = True) -> bytes:
    body = json.dumps(list(events) if group else events[0]).encode()
    return json.dumps({"body": base64.b64encode(body).decode(), "headers": {}}).encode()


def ended(kind: str = "task-succeeded", took: float = 0.04, **more: Any) -> dict[str, Any]:
    job = new_id()
    submitted = submission_time(job)
    assert submitted is not None
    at = submitted.timestamp() + took
    return {"type": kind, "uuid": job, "hostname": "w@host", "timestamp": at, **more}


def test_rates_and_times_are_of_the_last_seconds_and_by_model():
    activity = Activity(0)
    for second in range(5, 15):
        good = [ended(result="churn@3, 1 instance") for _ in range(8)]
        slow = [ended(result="churn@3, 1 instance", took=2.0), ended(result="iris@1, 2 instances")]
        activity.record(message(*good, *slow), second)
    churn, iris = activity.models(14.5)
    assert (churn.model, churn.succeeded_per_second, iris.model, iris.succeeded_per_second) == (
        "churn",
        9.0,
        "iris",
        1.0,
    )
    assert churn.p50_ms == pytest.approx(40, abs=1)
    assert churn.p95_ms == pytest.approx(2000, abs=1)
    assert activity.models(14 + 2 * WINDOW_SECONDS) == []


def test_a_failure_is_of_the_model_its_job_was_received_for():
    activity = Activity(0)
    failed = ended("task-failed", exception="ValueError: no")
    received = {"type": "task-received", "uuid": failed["uuid"], "args": "churn, 1 instance"}
    activity.record(message(received, {"type": "task-started", "uuid": failed["uuid"]}), 1)
    activity.record(message(failed, failed), 2)
    (trouble, unknown) = activity.errors(2)
    assert (trouble.model, trouble.error, trouble.count) == ("churn", "ValueError: no", 1)
    assert unknown.model == ""


def test_workers_are_up_while_their_heartbeats_come():
    activity = Activity(0)
    beat = {"type": "worker-heartbeat", "hostname": "w@host", "active": 2, "processed": 7, "loadavg": [0.5, 0, 0]}
    activity.record(message(beat, group=False), 1)
    activity.record(message(ended(result="churn@3, 1 instance")), 2)
    (worker,) = activity.workers(3)
    assert (worker.worker, worker.alive, worker.active_claims, worker.processed_claims, worker.load) == (
        "w@host",
        True,
        2,
        7,
        0.5,
    )
    assert worker.jobs_per_second == pytest.approx(1 / 3)
    assert not activity.workers(20)[0].alive
    activity.record(message({"type": "worker-offline", "hostname": "w@host"}), 21)
    assert activity.workers(21) == []


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{}", b'{"body":"!"}', b'{"body":"e30="}', b'{"body":"W10="}', message({"type": 7}), b"[" * 100_000],
)
def test_what_is_no_event_is_left_out(garbage: bytes):
    activity = Activity(0)
    activity.record(garbage, 1)
    assert activity.models(1) == []


def test_a_model_is_read_out_of_the_words_about_a_job():
    assert model_of_description("churn@3, 2 instances") == "churn"
    assert model_of_description("churn, 1 instance") == "churn"
    assert model_of_description(None) == ""
