"""Tests of the timeline of a job: its steps, their order and their sentences."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from headrace.cli.explain import format_timeline
from headrace.inspection.locate import JobLocation
from headrace.inspection.timeline import JobFacts, build_timeline
from headrace.text import format_duration
from headrace.wire.attempts import Attempt
from headrace.wire.execution import Completion, Execution, decode_completion
from headrace.wire.outcome import Cancelled, Expired, Failure, Prediction, Success, decode_outcome, encode_outcome
from headrace.wire.record import Record
from tests.support.stored_dead_letters import make_letter

JOB = "0199a2b4-8c00-7000-8000-000000000000"
SUBMITTED = 0x0199A2B48C00
SUCCESS = Success(job=JOB, prediction=Prediction(model="churn", version="3", predictions=[0]))
EXECUTION = Execution(
    lease="host/12/ab/7",
    claimed_ms=SUBMITTED + 40,
    claim_size=64,
    version="3",
    runtime="treelite",
    started_ms=2,
    duration_ms=4.2,
    instances=64,
)
COMPLETION = Completion(
    date_done=datetime.fromtimestamp((SUBMITTED + 50) / 1000, UTC).isoformat(),
    worker="w@host",
    execution=EXECUTION,
)
RECORD = Record(model="churn", submitted_ms=SUBMITTED)


def texts(facts: JobFacts) -> list[str]:
    return [step.text for step in build_timeline(facts).steps]


def test_a_success_names_the_claim_its_size_the_wait_and_the_prediction():
    timeline = build_timeline(JobFacts(job=JOB, record=RECORD, outcome=SUCCESS, completion=COMPLETION))
    assert (timeline.status, timeline.model, timeline.note) == ("success", "churn", None)
    assert [(step.kind, (step.at_ms or 0) - SUBMITTED, step.text) for step in timeline.steps] == [
        ("submitted", 0, "submitted"),
        ("claimed", 40, "claimed by w@host with 63 other jobs after a wait of 40 ms (lease host/12/ab/7)"),
        ("predicted", 42, "predicted by version 3 on treelite: 64 instances in 4.2 ms"),
        ("outcome", 50, "success: the outcome was published"),
    ]
    assert (timeline.steps[1].claim_size, timeline.steps[2].instances) == (64, 64)


def test_attempts_come_before_the_execution_that_finished_the_job():
    attempts = (
        Attempt(cause="error:ConnectionError", owner="host/1", at_ms=SUBMITTED + 10, claim_size=3),
        Attempt(cause="crash", owner="host/2", at_ms=SUBMITTED + 20, claim_size=1),
        Attempt(cause="requeued", owner="host/3", at_ms=SUBMITTED + 25, claim_size=0),
        Attempt(cause="replay", owner="ann@desk", at_ms=SUBMITTED + 30, claim_size=0),
    )
    execution = msgspec.structs.replace(EXECUTION, attempts=attempts, claim_size=1)
    completion = msgspec.structs.replace(COMPLETION, execution=execution)
    assert texts(JobFacts(job=JOB, outcome=SUCCESS, completion=completion))[1:6] == [
        "attempt on host/1 with 2 other jobs failed: the model raised ConnectionError",
        "attempt on host/2 alone failed: its process was lost",
        "requeued by host/3, which could not run it",
        "replayed by ann@desk",
        "claimed by w@host alone after a wait of 10 ms (lease host/12/ab/7)",
    ]


def attempt(cause: str, size: int = 1) -> Attempt:
    return Attempt(cause=cause, owner="host/1", at_ms=SUBMITTED + 10, claim_size=size)


@pytest.mark.parametrize(
    ("attempts", "ran", "count"),
    [
        ((), True, 1),
        ((attempt("crash"), attempt("error:OSError")), True, 3),
        ((attempt("crash"), attempt("requeued", 0)), True, 2),
        ((attempt("crash"), attempt("replay", 0)), True, 1),
        ((attempt("crash"), attempt("crash")), False, 2),
        ((), False, 0),
    ],
)
def test_attempts_are_runs_since_the_submission_or_the_last_replay(attempts, ran: bool, count: int):
    execution = EXECUTION if ran else Execution(lease="host/12/ab/7", claimed_ms=SUBMITTED + 40, claim_size=1)
    completion = Completion(execution=msgspec.structs.replace(execution, attempts=attempts))
    timeline = build_timeline(JobFacts(job=JOB, record=RECORD, outcome=SUCCESS, completion=completion))
    assert timeline.attempts == count
    assert len([step for step in timeline.steps if step.kind == "claimed"]) == ran


def test_attempts_of_a_job_without_an_outcome_include_a_present_run():
    waiting = JobLocation(model="churn", state="waiting", attempts=(attempt("crash"),), ahead=0)
    assert build_timeline(JobFacts(job=JOB, record=RECORD, location=waiting)).attempts == 1
    leased = JobLocation(model="churn", state="leased", attempts=(attempt("crash"),), lease="l", claim_size=1)
    assert build_timeline(JobFacts(job=JOB, record=RECORD, location=leased)).attempts == 2
    assert build_timeline(JobFacts(job=JOB, dead_letter=make_letter(JOB, runs=5))).attempts == 5
    assert build_timeline(JobFacts(job=JOB)).attempts is None


def test_a_claim_of_a_bulk_job_is_a_run_though_it_names_no_version():
    record = Record(model="churn", submitted_ms=SUBMITTED, is_bulk=True)
    completion = Completion(execution=Execution(lease="l", claimed_ms=SUBMITTED + 40, claim_size=1))
    timeline = build_timeline(JobFacts(job=JOB, record=record, outcome=SUCCESS, completion=completion))
    assert (timeline.attempts, timeline.steps[1].kind) == (1, "claimed")


def test_a_timeline_has_the_version_that_ran_the_size_of_the_outcome_and_the_trace():
    record = Record(model="churn", submitted_ms=SUBMITTED, trace="4bf9")
    facts = JobFacts(job=JOB, record=record, outcome=SUCCESS, completion=COMPLETION, outcome_bytes=313)
    timeline = build_timeline(facts)
    assert (timeline.version, timeline.outcome_bytes, timeline.trace) == ("3", 313, "4bf9")
    pinned = msgspec.structs.replace(attempt("crash"), version="2")
    waiting = JobLocation(model="churn", state="waiting", attempts=(pinned,), ahead=0)
    assert build_timeline(JobFacts(job=JOB, location=waiting)).version == "2"


def test_a_failure_names_its_reason_and_its_dead_letter():
    failure = Failure(job=JOB, reason="permanent", error="ValueError", module="builtins", message="no")
    steps = texts(JobFacts(job=JOB, outcome=failure, completion=COMPLETION, dead_letter=make_letter(JOB)))
    assert steps[-2] == "failed (permanent): ValueError: no"
    assert steps[-1].startswith("stored as a dead letter; `headrace dead show")


def test_a_dead_letter_whose_outcome_has_expired_still_names_the_failure():
    timeline = build_timeline(JobFacts(job="a", dead_letter=make_letter("a")))
    assert (timeline.status, timeline.model) == ("failure", "churn")
    assert "(permanent): ValueError: the model cannot" in timeline.steps[-1].text


@pytest.mark.parametrize(
    ("outcome", "status", "text"),
    [
        (Cancelled(job=JOB), "cancelled", "cancelled"),
        (Expired(job=JOB), "expired", "expired: it was not started before its deadline"),
    ],
)
def test_a_job_that_never_ran_names_its_outcome(outcome, status, text):
    timeline = build_timeline(JobFacts(job=JOB, outcome=outcome))
    assert (timeline.status, timeline.steps[-1].text, timeline.note) == (status, text, None)


@pytest.mark.parametrize(
    ("location", "status", "text"),
    [
        (
            JobLocation(model="churn", state="waiting", ahead=12),
            "waiting",
            "waits in the queue; 12 jobs ahead of it",
        ),
        (JobLocation(model="churn", state="waiting", ahead=0), "waiting", "waits in the queue; it is the next"),
        (JobLocation(model="churn", state="delayed", due_ms=SUBMITTED), "waiting", "delayed until it is due"),
        (
            JobLocation(model="churn", state="isolated", ahead=1),
            "waiting",
            "waits to run alone, before other jobs; 1 job ahead of it",
        ),
        (
            JobLocation(model="churn", state="leased", lease="host/1/2/3", claim_size=1),
            "running",
            "claimed by a worker alone (lease host/1/2/3)",
        ),
    ],
)
def test_the_last_step_of_a_job_without_an_outcome_is_its_present_place(location, status, text):
    timeline = build_timeline(JobFacts(job=JOB, record=RECORD, location=location))
    assert (timeline.status, timeline.steps[-1].text) == (status, text)
    assert timeline.steps[-1].kind == location.state


def test_a_job_that_redis_does_not_have_is_unknown_with_advice():
    timeline = build_timeline(JobFacts(job="mine"))
    assert (timeline.status, timeline.steps) == ("unknown", ())
    assert timeline.note is not None
    assert "key prefix" in timeline.note


def test_a_stored_outcome_contains_its_execution_and_stays_readable_by_celery():
    stored = encode_outcome(SUCCESS, datetime.fromtimestamp(1, UTC), execution=EXECUTION.encode(), worker="w@host")
    assert stored.startswith(b'{"status":"SUCCESS"')
    assert decode_outcome(stored) == SUCCESS
    assert json.loads(stored)["worker"] == "w@host"
    completion = decode_completion(stored)
    assert (completion.execution, completion.worker, completion.published_ms) == (EXECUTION, "w@host", 1000)
    assert len(stored) - len(encode_outcome(SUCCESS, datetime.fromtimestamp(1, UTC))) < 120


@pytest.mark.parametrize(
    "stored", [b"", b"[]", b"{", b'{"execution":7}', b'{"execution":["x",1]}', b'{"date_done":[]}']
)
def test_a_result_stored_by_another_program_has_an_empty_completion(stored: bytes):
    assert decode_completion(stored) == Completion()


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0.04, "0.04 ms"), (4.25, "4.25 ms"), (999, "999 ms"), (1300, "1.3 s"), (125_000, "2 min 5 s")],
)
def test_a_duration_is_written_in_the_unit_that_fits_it(ms: float, text: str):
    assert format_duration(ms) == text


def test_a_printed_timeline_counts_from_the_first_moment_and_has_no_control_characters():
    failure = Failure(job=JOB, reason="permanent", error="E", module="m", message="\x1b[31mred")
    facts = JobFacts(job=JOB, record=RECORD, outcome=failure, completion=COMPLETION)
    lines = list(format_timeline(build_timeline(facts)))
    assert lines[0] == f"job {JOB} of churn: failure"
    execution = msgspec.structs.replace(EXECUTION, attempts=(attempt("crash"),))
    twice = msgspec.structs.replace(facts, completion=Completion(execution=execution))
    assert next(format_timeline(build_timeline(twice))) == f"job {JOB} of churn: failure, 2 attempts"
    assert lines[1].strip().endswith("  submitted")
    assert lines[2].strip().startswith("+0.040 s  claimed")
    assert not any("\x1b" in line for line in lines)
