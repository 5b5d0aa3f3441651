"""The log lines of a claim say what failed and why, without a value of an instance."""

from __future__ import annotations

import logging
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from headrace.errors import InvalidInput
from headrace.wire.message import Job
from headrace.wire.queues import bulk_queue_name
from headrace_worker.execution.claimed_job import Admitted, FailedRun, JobResult
from headrace_worker.execution.settle import OutcomeDecider
from headrace_worker.failures import locate_error
from headrace_worker.manifest import Limits
from headrace_worker.telemetry.claim_log import ClaimLog
from headrace_worker.transport.claims import Claim, Lease
from tests.support.claim_reports import claim_report, claimed_job

SECRET = "Rumpelstiltskin"


def transform(row: dict[str, Any]) -> None:
    """Raise as a step of a pipeline does that quotes its input."""
    raise ValueError(f"column 'city'\nis {row['city']!r}")


def raised(function: Any, *arguments: Any) -> BaseException:
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001  # whatever it raises
        return error
    raise AssertionError("nothing was raised")


def lines_of(
    caplog: pytest.LogCaptureFixture, *errors: BaseException, queue: str = "predict.churn", **limits: Any
) -> list[str]:
    """Return the log lines of a claim whose jobs ended in these errors, each with its own instance."""
    manifest = SimpleNamespace(name="churn", version="3", limits=Limits(**limits))
    model: Any = SimpleNamespace(manifest=manifest)
    claim = Claim(
        lease=Lease(name="w/1", queue=queue, origins=()), queued_messages=(), claimed_ms=0, claimed_monotonic=0.0
    )
    decider = OutcomeDecider(queue=queue, owner="w", worker="w", now_ms=0, chance=lambda: 0.5)
    for number, error in enumerate(errors):
        job = Job(id=f"job-{number}", model="churn", instances=[{"city": SECRET, "age": 40 + number}])
        claimed = claimed_job(job)
        decider.add_results([JobResult(claimed, FailedRun(Admitted(claimed, model, "predict", ()), error))])
    report = claim_report(
        claim, outcomes=decider.decisions.outcomes.values(), decisions=decider.decisions, not_run=()
    )
    with caplog.at_level(logging.INFO, "headrace.claims"):
        ClaimLog().on_claim_finished(report)
    return [record.getMessage() for record in caplog.records]


def test_a_failed_job_is_logged_with_the_message_and_the_line_of_code(caplog: pytest.LogCaptureFixture):
    error = raised(transform, {"city": SECRET})
    line = transform.__code__.co_firstlineno + 2
    cause = f"ValueError: column 'city' is '<value>' (test_claim_log.py:{line} in transform)"
    assert lines_of(caplog, error) == [f"1 job of predict.churn failed (permanent): {cause}"]


def test_an_error_in_a_library_is_located_in_the_code_that_called_it():
    error = raised(lambda: LogisticRegression().fit(np.ones((2, 2)), [1, 1]))
    assert (locate_error(error) or "").startswith("test_claim_log.py:")


def test_an_error_without_code_of_ones_own_is_located_in_the_library():
    error = raised(lambda: LogisticRegression().fit(np.ones((2, 2)), [1, 1]))
    first = error.__traceback__
    assert first is not None
    assert first.tb_next is not None
    error.__traceback__ = first.tb_next.tb_next  # without the frames of this file
    assert re.fullmatch(r"(?!test_)\w+\.py:\d+ in \w+", locate_error(error) or "")
    assert locate_error(ValueError("never raised")) is None


def test_a_retried_job_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture):
    error = ConnectionResetError(f"no route to {SECRET}")
    assert lines_of(caplog, error) == [
        "1 job of predict.churn will run again after ConnectionResetError: no route to <value>"
    ]


def test_jobs_that_failed_alike_share_a_line_with_the_message_of_the_first(caplog: pytest.LogCaptureFixture):
    errors = [InvalidInput(f"instance 0 has no column {letter!r}") for letter in "ab"]
    assert lines_of(caplog, *errors) == [
        "2 jobs of predict.churn failed (bad input): InvalidInput: instance 0 has no column 'a'"
    ]


def test_a_long_message_is_cut(caplog: pytest.LogCaptureFixture):
    (line,) = lines_of(caplog, ValueError("matrix of shapes " * 100))
    assert line.endswith("matrix ...")
    assert len(line) < 400


@pytest.mark.parametrize("attempts", [1, 5])
def test_the_message_of_a_librarys_error_in_a_bulk_run_is_not_logged(
    caplog: pytest.LogCaptureFixture, attempts: int
):
    error = ConnectionResetError("row of the file: Lancelot")
    (line,) = lines_of(caplog, error, queue=bulk_queue_name("churn"), max_attempts=attempts)
    assert "ConnectionResetError" in line
    assert "Lancelot" not in line
