"""Jobs that ended without an error have a line for each version and state, without input and output."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.wire.message import Job
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Prediction, Success
from headrace_worker.telemetry.job_log import JobLog, is_wanted
from headrace_worker.transport.claims import Claim, Lease
from tests.support.claim_reports import batch_run, claim_report, claimed_job

CLAIM = Claim(
    lease=Lease(name="w/1", queue="predict.churn", origins=()),
    queued_messages=(),
    claimed_ms=0,
    claimed_monotonic=0.0,
)
MODEL: Any = SimpleNamespace(manifest=SimpleNamespace(name="churn", version="3"))


def success(job: str, version: str = "3") -> Success:
    return Success(job=job, prediction=Prediction(model="churn", version=version, predictions=["secret"]))


def lines_of(caplog: pytest.LogCaptureFixture, *outcomes: Outcome, instances: int = 1, **more: Any) -> list[str]:
    jobs = [
        claimed_job(Job(id=outcome.job, model="churn", instances=[{"city": "secret"}] * instances))
        for outcome in outcomes
    ]
    report = claim_report(
        CLAIM, [batch_run(jobs, MODEL)], outcomes=outcomes, times=(10.0, 10.002, 10.0031), **more
    )
    with caplog.at_level(logging.INFO, "headrace.jobs"):
        JobLog().on_claim_finished(report)
    return [record.getMessage() for record in caplog.records]


def test_a_line_names_version_instances_state_and_time(caplog: pytest.LogCaptureFixture):
    assert lines_of(caplog, success("a"), instances=2) == ["churn@3: 2 instances, success, 3.1 ms"]
    fields = vars(caplog.records[0])
    assert (fields["job"], fields["state"], fields["duration_ms"]) == ("a", "success", 3.1)
    assert "secret" not in str(fields)


def test_jobs_share_a_line_by_version_and_state(caplog: pytest.LogCaptureFixture):
    outcomes = [success("a"), success("b"), success("c", "4"), Expired(job="d")]
    assert lines_of(caplog, *outcomes, cancelled=[claimed_job(Job(id="e", model="churn", instances=[]))]) == [
        "churn: 0 instances, cancelled, 3.1 ms",
        "churn@3: 2 jobs, 2 instances, success, 3.1 ms",
        "churn@4: 1 instance, success, 3.1 ms",
        "churn: 1 instance, expired, 3.1 ms",
    ]


def test_a_failure_is_left_to_the_log_of_claims(caplog: pytest.LogCaptureFixture):
    failure = Failure(job="a", reason="permanent", error="E", module="m", message="no")
    assert lines_of(caplog, failure, Cancelled(job="b")) == ["churn: 1 instance, cancelled, 3.1 ms"]


def test_a_refused_outcome_has_no_line(caplog: pytest.LogCaptureFixture):
    assert lines_of(caplog, success("a"), lease_lost=True) == []


def test_jobs_are_logged_on_a_terminal_or_on_request(monkeypatch: pytest.MonkeyPatch):
    for terminal in (True, False):
        monkeypatch.setattr("os.isatty", lambda _, terminal=terminal: terminal)
        assert (is_wanted("auto"), is_wanted("true"), is_wanted("false")) == (terminal, True, False)
