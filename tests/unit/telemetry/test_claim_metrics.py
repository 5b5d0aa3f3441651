"""What is counted of a claim, and that no message can make a label."""

from __future__ import annotations

import os
import time
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
from headrace_worker.telemetry import metrics
from headrace_worker.telemetry.claim_metrics import count_claim
from headrace_worker.telemetry.metrics import MetricDelta, decode
from headrace_worker.telemetry.metrics_pipe import MetricsPipe
from headrace_worker.transport.leases import Claim, Lease
from tests.support.claim_reports import batch_run, claim_report, claimed_job

AT = datetime(2030, 1, 1, tzinfo=UTC)


def model(**limits: Any) -> Any:
    return SimpleNamespace(manifest=SimpleNamespace(name="churn", version="3", limits=Limits(**limits)))


def job_id(seconds_before: float) -> str:
    """A job's id that tells when it was submitted: UUID version 7."""
    moment = f"{int((AT.timestamp() - seconds_before) * 1000):012x}"
    return f"{moment[:8]}-{moment[8:]}-7000-8000-{os.urandom(6).hex()}"


def report(
    *frames: bytes,
    jobs: list[Job],
    outcomes: list[Any],
    batches: int = 1,
    letters: Any = (),
    lost: bool = False,
    **limits: Any,
) -> ClaimReport:
    claimed = [claimed_job(job, queued_message=frame) for job, frame in zip(jobs, frames, strict=True)]
    claim = Claim(
        lease=Lease(name="w/1", queue="predict.churn", origins=()),
        queued_messages=frames,
        claimed_ms=int(AT.timestamp() * 1000),
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


def counted(one: ClaimReport, claim_jobs: int = 256) -> MetricDelta:
    tally = MetricDelta(counters={}, histograms={})
    count_claim(one, tally, claim_jobs=claim_jobs)
    return tally


def success(job: str) -> Success:
    return Success(job=job, prediction=Prediction(model="churn", version="3", predictions=[1]))


def test_a_claim_counts_its_outcomes_waits_batches_and_seconds() -> None:
    jobs = [Job(id=job_id(2), model="churn", instances=[1, 2]), Job(id="own-name", model="churn", instances=[1])]
    tally = counted(report(*map(encode_message, jobs), jobs=jobs, outcomes=[success(job.id) for job in jobs]))
    assert tally.counters == {
        ("headrace_jobs_total", ("churn", "3", "success")): 2,
        ("headrace_batches_total", ("churn", "3", "empty")): 1,
    }
    sums = {name: (row[0], sum(row[1:])) for (name, _), row in tally.histograms.items()}
    assert sums == {
        "headrace_wait_seconds": (pytest.approx(2, abs=0.002), 1),
        "headrace_batch_seconds": (0.25, 1),
        "headrace_predict_seconds": (0.5, 1),
        "headrace_batch_rows": (3, 1),
        "headrace_publish_seconds": (0.25, 1),
    }


def test_a_delayed_job_waits_from_the_moment_it_was_due() -> None:
    job = Job(id=job_id(3600), model="churn", instances=[1], eta=AT - timedelta(seconds=1))
    tally = counted(report(encode_message(job), jobs=[job], outcomes=[success(job.id)]))
    assert tally.histograms["headrace_wait_seconds", ("churn",)][0] == pytest.approx(1, abs=0.002)


def test_a_clock_that_is_ahead_makes_a_wait_of_nothing() -> None:
    job = Job(id=job_id(-60), model="churn", instances=[1])
    assert (
        counted(report(encode_message(job), jobs=[job], outcomes=[success(job.id)])).histograms[
            "headrace_wait_seconds", ("churn",)
        ][0]
        == 0
    )


def test_what_a_message_says_is_no_label() -> None:
    job = Job(id="x", model='evil"} 1\n', version="9999", instances=[1])
    frame = encode_queued_message(
        [Attempt(cause=f"error:{'E' * 40}", owner="o", at_ms=1, claim_size=1)], encode_message(job)
    )
    frame = frame.replace(b"\x01", b"\x01whatever,o,1,1;")
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
    tally = counted(report(frame, jobs=[job], outcomes=[failure], batches=0, letters=[letter]))
    assert tally.counters == {
        ("headrace_jobs_total", ("churn", "", "failure")): 1,
        ("headrace_dead_letters_total", ("churn", "unknown model")): 1,
        ("headrace_attempts_total", ("churn", "other")): 1,
        ("headrace_attempts_total", ("churn", "error")): 1,
    }


def test_a_lost_lease_is_all_that_is_counted_of_its_claim() -> None:
    job = Job(id="a", model="churn", instances=[1])
    tally = counted(report(encode_message(job), jobs=[job], outcomes=[], lost=True))
    assert (tally.counters, tally.histograms) == ({("headrace_lease_losses_total", ("churn",)): 1}, {})


@pytest.mark.parametrize(
    ("cut", "frames", "batches", "limits"),
    [
        ("empty", 3, 1, {}),
        ("rows", 3, 1, {"max_batch_instances": 3}),
        ("jobs", 4, 1, {}),
        ("bytes", 3, 1, {"max_batch_bytes": 100}),
        ("mixed", 3, 2, {}),
    ],
)
def test_a_batch_tells_why_it_holds_no_more(cut: str, frames: int, batches: int, limits: dict[str, int]) -> None:
    jobs = [Job(id=f"j{n}", model="churn", instances=[1]) for n in range(frames)]
    one = report(*map(encode_message, jobs), jobs=jobs, outcomes=[], batches=batches, **limits)
    assert counted(one, claim_jobs=4).counters == {("headrace_batches_total", ("churn", "3", cut)): batches}


def test_a_job_that_runs_alone_is_a_batch_cut_for_that() -> None:
    job = Job(id="a", model="churn", instances=[1])
    frame = encode_queued_message([Attempt(cause="crash", owner="o", at_ms=1, claim_size=3)], encode_message(job))
    assert ("headrace_batches_total", ("churn", "3", "alone")) in counted(
        report(frame, jobs=[job], outcomes=[])
    ).counters


def test_a_tally_survives_its_way_in_parts() -> None:
    tally, got = MetricDelta(counters={}, histograms={}), MetricDelta(counters={}, histograms={})
    for n in range(5):
        tally.add(metrics.RETRIES, (f"m{n}",), n)
        tally.observe(metrics.WAIT_SECONDS, (f"m{n}",), [0.1, 1e9])
    for part in tally.encode_chunks(3):
        got.merge(decode(part))
    assert (got.counters, got.histograms) == (tally.counters, tally.histograms)


def test_a_process_that_cannot_send_keeps_a_sum_and_sends_it_later() -> None:
    feed = MetricsPipe()
    one = MetricDelta(counters={}, histograms={})
    one.add(metrics.RETRIES, ("m",))
    child = os.fork()
    if not child:  # as a pool process: more than a socket holds, all at once
        for _ in range(20_000):
            feed.send(one)
        deadline = time.monotonic() + 10
        while feed._unsent and time.monotonic() < deadline:  # what is left is to go, too
            feed.send(MetricDelta(counters={}, histograms={}))
        os._exit(0)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 10
    while feed.totals().counters.get(("headrace_retries_total", ("m",))) != 20_000:
        assert time.monotonic() < deadline, feed.totals()
        time.sleep(0.01)
    feed.close()
