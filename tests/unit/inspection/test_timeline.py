"""A job's timeline says what Redis holds of it, in order and in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from headrace.cli.explain import page
from headrace.inspection.locate import JobLocation
from headrace.inspection.timeline import JobFacts, build_timeline
from headrace.text import format_duration
from headrace.wire.attempts import Attempt
from headrace.wire.execution import Completion, Execution, decode_completion
from headrace.wire.outcome import Cancelled, Expired, Failure, Prediction, Success, decode_outcome, encode_outcome
from headrace.wire.record import Record
from tests.support.stored_dead_letters import letter

JOB = "0199a2b4-8c00-7000-8000-000000000000"
SUBMITTED = 0x0199A2B48C00
SUCCESS = Success(job=JOB, prediction=Prediction(model="churn", version="3", predictions=[0]))
RUN = Execution(
    lease="host/12/ab/7",
    claimed_ms=SUBMITTED + 40,
    claim_size=64,
    version="3",
    runtime="treelite",
    started_ms=2,
    duration_ms=4.2,
    instances=64,
)
DONE = Completion(
    date_done=datetime.fromtimestamp((SUBMITTED + 50) / 1000, UTC).isoformat(), worker="w@host", execution=RUN
)
RECORD = Record(model="churn", submitted_ms=SUBMITTED)


def lines(known: JobFacts) -> list[str]:
    return [step.text for step in build_timeline(known).steps]


def test_a_success_tells_who_claimed_it_with_whom_and_what_predicted():
    found = build_timeline(JobFacts(job=JOB, record=RECORD, outcome=SUCCESS, completion=DONE))
    assert (found.status, found.model, found.note) == ("success", "churn", None)
    assert [(step.kind, (step.at_ms or 0) - SUBMITTED, step.text) for step in found.steps] == [
        ("submitted", 0, "submitted"),
        ("claimed", 40, "claimed with 63 others by w@host after a wait of 40 ms (claim host/12/ab/7)"),
        ("predicted", 42, "predicted by version 3 on treelite: 64 rows in 4.2 ms"),
        ("ended", 50, "success: the outcome was published"),
    ]


def test_attempts_come_before_the_run_that_ended_the_job():
    tried = (
        Attempt(cause="error:ConnectionError", owner="host/1", at_ms=SUBMITTED + 10, claim_size=3),
        Attempt(cause="crash", owner="host/2", at_ms=SUBMITTED + 20, claim_size=1),
        Attempt(cause="replay", owner="ann@desk", at_ms=SUBMITTED + 30, claim_size=0),
    )
    run = msgspec.structs.replace(RUN, attempts=tried, claim_size=1)
    told = lines(JobFacts(job=JOB, outcome=SUCCESS, completion=msgspec.structs.replace(DONE, execution=run)))
    assert told[1:5] == [
        "ran with 2 others on host/1, in vain: the model raised ConnectionError",
        "ran alone on host/2, in vain: its process was lost",
        "sent again by ann@desk",
        "claimed alone by w@host after a wait of 10 ms (claim host/12/ab/7)",
    ]


def test_a_failure_names_its_reason_and_its_dead_letter():
    failure = Failure(job=JOB, reason="permanent", error="ValueError", module="builtins", message="no")
    told = lines(JobFacts(job=JOB, outcome=failure, completion=DONE, dead_letter=letter(JOB)))
    assert told[-2] == "failed for good (permanent): ValueError: no"
    assert told[-1].startswith("kept as a dead letter; `headrace dead show")


def test_a_letter_whose_outcome_is_forgotten_still_tells_the_failure():
    found = build_timeline(JobFacts(job="a", dead_letter=letter("a")))
    assert (found.status, found.model) == ("failure", "churn")
    assert "(permanent): ValueError: the model cannot" in found.steps[-1].text


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (Cancelled(job=JOB), "cancelled", "cancelled"),
        (Expired(job=JOB), "expired", "expired: it was not started before its deadline"),
    ],
)
def test_what_never_ran_says_why(outcome, status, said):
    found = build_timeline(JobFacts(job=JOB, outcome=outcome))
    assert (found.status, found.steps[-1].text, found.note) == (status, said, None)


@pytest.mark.parametrize(
    ("place", "status", "said"),
    [
        (
            JobLocation(model="churn", state="waiting", ahead=12),
            "queued",
            "waits in the queue; 12 jobs ahead of it",
        ),
        (JobLocation(model="churn", state="waiting", ahead=0), "queued", "waits in the queue; it is the next"),
        (JobLocation(model="churn", state="delayed", due_ms=SUBMITTED), "queued", "waits until it is due"),
        (
            JobLocation(model="churn", state="again", ahead=1),
            "queued",
            "waits to run again, alone and before others; 1 job ahead of it",
        ),
        (
            JobLocation(model="churn", state="leased", claim="host/1/2/3", claim_size=1),
            "running",
            "a worker has it, alone (claim host/1/2/3)",
        ),
    ],
)
def test_a_job_without_an_outcome_says_where_it_is(place, status, said):
    found = build_timeline(JobFacts(job=JOB, record=RECORD, location=place))
    assert (found.status, found.steps[-1].text) == (status, said)


def test_a_job_nobody_knows_is_unknown_and_says_what_to_look_at():
    found = build_timeline(JobFacts(job="mine"))
    assert (found.status, found.steps) == ("unknown", ())
    assert found.note is not None
    assert "key prefix" in found.note


def test_a_stored_outcome_carries_its_run_and_stays_what_celery_reads():
    stored = encode_outcome(SUCCESS, datetime.fromtimestamp(1, UTC), execution=RUN.encode(), worker="w@host")
    assert stored.startswith(b'{"status":"SUCCESS"')
    assert decode_outcome(stored) == SUCCESS
    assert json.loads(stored)["worker"] == "w@host"
    told = decode_completion(stored)
    assert (told.execution, told.worker, told.published_ms) == (RUN, "w@host", 1000)
    assert len(stored) - len(encode_outcome(SUCCESS, datetime.fromtimestamp(1, UTC))) < 120


@pytest.mark.parametrize(
    "stored", [b"", b"[]", b"{", b'{"execution":7}', b'{"execution":["x",1]}', b'{"date_done":[]}']
)
def test_what_others_stored_tells_nothing(stored: bytes):
    assert decode_completion(stored) == Completion()


@pytest.mark.parametrize(
    ("ms", "said"),
    [(0.04, "0.04 ms"), (4.25, "4.25 ms"), (999, "999 ms"), (1300, "1.3 s"), (125_000, "2 min 5 s")],
)
def test_times_are_said_as_people_say_them(ms: float, said: str):
    assert format_duration(ms) == said


def test_a_page_counts_from_the_first_moment_and_prints_no_control_characters():
    failure = Failure(job=JOB, reason="permanent", error="E", module="m", message="\x1b[31mred")
    told = list(page(build_timeline(JobFacts(job=JOB, record=RECORD, outcome=failure, completion=DONE))))
    assert told[0] == f"job {JOB} of churn: failure"
    assert told[1].strip().endswith("  submitted")
    assert told[2].strip().startswith("+0.040 s  claimed")
    assert not any("\x1b" in line for line in told)
