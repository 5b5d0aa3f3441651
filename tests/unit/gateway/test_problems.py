"""Errors of Headrace as problems."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from headrace.errors import BrokerUnavailable, HeadraceError, JobExpired, JobFailed, NotDurable, QueueFull
from headrace.outcome import Reason
from headrace_gateway.problems import Problem, problem_of

EXPECTED = {
    "bad input": (422, "invalid-input"),
    "permanent": (500, "model-failed"),
    "attempts exhausted": (500, "model-failed"),
    "crash": (500, "model-failed"),
    "timeout": (504, "model-timeout"),
    "malformed": (500, "model-failed"),
    "unknown model": (404, "unknown-model"),
}


@pytest.mark.parametrize("reason", get_args(Reason))
def test_every_reason_of_a_failure_is_a_problem_that_names_it(reason: str) -> None:
    problem = problem_of(JobFailed("job 1 failed", job="1", reason=reason, error="ValueError"))
    assert (problem.status, problem.kind) == EXPECTED[reason]
    assert problem.more == {"id": "1", "reason": reason, "exception": "ValueError"}


def test_a_job_that_expired_is_504() -> None:
    problem = problem_of(JobExpired("late", job="1", reason="expired", error="TaskRevokedError"))
    assert (problem.status, problem.kind) == (504, "expired")


@pytest.mark.parametrize("error", [QueueFull("full"), NotDurable("not durable"), BrokerUnavailable("away")])
def test_a_problem_that_passes_tells_when_and_under_which_id_to_repeat_the_call(error: HeadraceError) -> None:
    problem = problem_of(error, job="0197-a")
    assert (problem.status, problem.more) == (503, {"id": "0197-a"})
    assert 1 <= int(problem.headers["Retry-After"]) <= 3
    assert "PUT /v1/jobs/0197-a" in problem.detail


def test_an_error_that_nobody_expected_tells_nothing() -> None:
    assert problem_of(HeadraceError("a secret")).detail == "the gateway failed; its log has the cause"


def test_a_problem_has_all_members_of_the_rfc_and_the_one_that_clients_of_open_inference_read() -> None:
    errors = [{"pointer": "/instances/0/age", "detail": "must be a number"}]
    answer = Problem(422, "invalid-input", "it does not fit", errors=errors).response("/v1/models/churn:predict")
    body = msgspec.json.decode(bytes(answer.body))
    assert body.pop("type").endswith("/invalid-input")
    assert body.pop("title")
    assert body == {
        "status": 422,
        "detail": "it does not fit",
        "error": "it does not fit",
        "instance": "/v1/models/churn:predict",
        "errors": errors,
    }
