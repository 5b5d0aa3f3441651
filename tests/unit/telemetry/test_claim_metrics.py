"""The metrics of a claim; no text of a message becomes a label."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.wire.attempts import Attempt, encode_queued_message
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure, Prediction, Success
from headrace_worker.execution.report import ClaimReport
from headrace_worker.execution.settle import ClaimDecisions
from headrace_worker.manifest import Limits
from headrace_worker.telemetry.claim_metrics import count_claim
from headrace_worker.telemetry.metrics import MetricDelta
from headrace_worker.transport.claims import Claim, Lease
from tests.support.claim_reports import batch_run, claim_report, claimed_job

CLAIMED_AT = datetime(2030, 1, 1, tzinfo=UTC)


def model(**limits: Any) -> Any:
    return SimpleNamespace(manifest=SimpleNamespace(name="churn", version="3", limits=Limits(**limits)))


def job_id(seconds_before: float) -> str:
    """Return a job id (UUID version 7) of a submission this many seconds before the claim."""
    moment = f"{int((CLAIMED_AT.timestamp() - seconds_before) * 1000):012x}"
    return f"{moment[:8]}-{moment[8:]}-7000-8000-{os.urandom(6).hex()}"


def report(
    *queued_messages: bytes,
    jobs: list[Job],
    outcomes: list[Any],
    batches: int = 1,
    letters: Any = (),
    lost: bool = False,
    **limits: Any,
) -> ClaimReport:
    """Return the report of a claim of these jobs, run in so many batches by a model with these limits."""
    claimed = [
        claimed_job(job, queued_message=message) for job, message in zip(jobs, queued_messages, strict=True)
    ]
    claim = Claim(
        lease=Lease(name="w/1", queue="predict.churn", origins=()),
        queued_messages=queued_messages,
        claimed_ms=int(CLAIMED_AT.timestamp() * 1000),
        claimed_monotonic=100.0,
    )
    served = model(**limits)
    return claim_report(
        claim,
        [
            batch_run(claimed[number::batches], served, started_at=100.25, finished_at=100.75)
            for number in range(batches)
        ],
        not_run=[] if batches else claimed,
        outcomes=outcomes,
        decisions=ClaimDecisions(letters=[(letter, b"") for letter in letters]),
        lease_lost=lost,
        times=(100.125, 100.75, 101.0),
    )


def count(report: ClaimReport, claim_jobs: int = 256) -> MetricDelta:
    delta = MetricDelta(counters={}, histograms={})
    count_claim(report, delta, claim_jobs=claim_jobs)
    return delta


def success(job: str) -> Success:
    return Success(job=job, prediction=Prediction(model="churn", version="3", predictions=[1]))


def test_a_claim_counts_its_outcomes_waits_batches_and_seconds() -> None:
    jobs = [Job(id=job_id(2), model="churn", instances=[1, 2]), Job(id="own-name", model="churn", instances=[1])]
    delta = count(report(*map(encode_message, jobs), jobs=jobs, outcomes=[success(job.id) for job in jobs]))
    assert delta.counters == {
        ("headrace_jobs_total", ("churn", "3", "success")): 2,
        ("headrace_batches_total", ("churn", "3", "empty")): 1,
    }
    sums = {name: (numbers[0], sum(numbers[1:])) for (name, _), numbers in delta.histograms.items()}
    assert sums == {
        "headrace_wait_seconds": (pytest.approx(2, abs=0.002), 1),
        "headrace_batch_seconds": (0.25, 1),
        "headrace_predict_seconds": (0.5, 1),
        "headrace_batch_instances": (3, 1),
        "headrace_publish_seconds": (0.25, 1),
    }


def test_a_delayed_job_waits_from_the_moment_it_was_due() -> None:
    job = Job(id=job_id(3600), model="churn", instances=[1], eta=CLAIMED_AT - timedelta(seconds=1))
    delta = count(report(encode_message(job), jobs=[job], outcomes=[success(job.id)]))
    assert delta.histograms["headrace_wait_seconds", ("churn",)][0] == pytest.approx(1, abs=0.002)


def test_a_wait_is_0_if_the_producer_s_clock_is_ahead() -> None:
    job = Job(id=job_id(-60), model="churn", instances=[1])
    delta = count(report(encode_message(job), jobs=[job], outcomes=[success(job.id)]))
    assert delta.histograms["headrace_wait_seconds", ("churn",)][0] == 0


def test_no_text_of_a_message_becomes_a_label() -> None:
    job = Job(id="x", model='evil"} 1\n', version="9999", instances=[1])
    attempt = Attempt(cause=f"error:{'E' * 40}", owner="o", at_ms=1, claim_size=1)
    queued_message = encode_queued_message([attempt], encode_message(job))
    queued_message = queued_message.replace(b"\x01", b"\x01whatever,o,1,1\n\x01")
    failure = Failure(job="x", reason="unknown model", error="UnknownModel", module="headrace", message="no")
    letter = DeadLetter(
        id="x",
        model=job.model,
        version="9999",
        queue="q",
        reason="unknown model",
        error="E",
        module="m",
        message="",
        worker="w",
    )
    delta = count(report(queued_message, jobs=[job], outcomes=[failure], batches=0, letters=[letter]))
    assert delta.counters == {
        ("headrace_jobs_total", ("churn", "", "failure")): 1,
        ("headrace_dead_letters_total", ("churn", "unknown model")): 1,
        ("headrace_attempts_total", ("churn", "other")): 1,
        ("headrace_attempts_total", ("churn", "error")): 1,
    }


def test_a_claim_that_lost_its_lease_counts_only_that() -> None:
    job = Job(id="a", model="churn", instances=[1])
    delta = count(report(encode_message(job), jobs=[job], outcomes=[], lost=True))
    assert (delta.counters, delta.histograms) == ({("headrace_lease_losses_total", ("churn",)): 1}, {})


@pytest.mark.parametrize(
    ("cut", "jobs", "batches", "limits"),
    [
        ("empty", 3, 1, {}),
        ("instances", 3, 1, {"max_batch_instances": 3}),
        ("jobs", 4, 1, {}),
        ("bytes", 3, 1, {"max_batch_bytes": 100}),
        ("mixed", 3, 2, {}),
    ],
)
def test_a_batch_is_counted_by_the_reason_it_holds_no_more(
    cut: str, jobs: int, batches: int, limits: dict[str, int]
) -> None:
    claimed = [Job(id=f"j{number}", model="churn", instances=[1]) for number in range(jobs)]
    claim = report(*map(encode_message, claimed), jobs=claimed, outcomes=[], batches=batches, **limits)
    assert count(claim, claim_jobs=4).counters == {("headrace_batches_total", ("churn", "3", cut)): batches}


def test_a_batch_of_an_isolated_job_is_counted_as_alone() -> None:
    job = Job(id="a", model="churn", instances=[1])
    attempt = Attempt(cause="crash", owner="o", at_ms=1, claim_size=3)
    delta = count(report(encode_queued_message([attempt], encode_message(job)), jobs=[job], outcomes=[]))
    assert ("headrace_batches_total", ("churn", "3", "alone")) in delta.counters
