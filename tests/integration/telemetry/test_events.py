"""Celery's own receiver reads our groups of events as it reads Celery's."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from celery import Celery
from celery.events.state import State
from redis.backoff import NoBackoff
from redis.retry import Retry

from headrace.connection.celery import create_celery_app
from headrace.settings import Settings
from headrace.wire.message import Job
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Prediction, Success
from headrace_worker.execution.claimed_job import ClaimedJob, FailedRun
from headrace_worker.execution.report import ClaimReport
from headrace_worker.execution.settle import ClaimDecisions
from headrace_worker.telemetry import events as telemetry_events
from headrace_worker.telemetry.events import Events
from headrace_worker.transport.leases import Claim, Lease
from tests.support.claim_reports import batch_run, claim_report, claimed_job
from tests.support.stored_dead_letters import make_letter

#: What every event has, whoever sent it.
ABOUT = {"type", "hostname", "utcoffset", "pid", "clock", "timestamp", "local_received"}
SUCCESS = Success(job="a", prediction=Prediction(model="churn", version="3", predictions=["Xyzzy", "Xyzzy"]))
FAILURE = Failure(
    job="b", reason="permanent", error="ValueError", module="builtins", message="no", traceback="in predict"
)


class Heard:
    """Celery's receiver, listening in a thread."""

    def __init__(self, app: Celery) -> None:
        self.events: list[dict[str, Any]] = []
        self._app, self._listens = app, threading.Event()
        self._receiver: Any = None
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        with self._app.connection_for_read() as connection:
            self._receiver = self._app.events.Receiver(connection, handlers={"*": self.events.append})
            with self._receiver.consumer_context(wakeup=False) as (listening, *_):
                while not self._receiver.should_stop:
                    try:
                        listening.drain_events(timeout=0.05)
                    except TimeoutError:
                        self._listens.set()

    def __enter__(self) -> Heard:
        self._thread.start()
        assert self._listens.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join()

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 10
        while len(self.events) < count:
            assert time.monotonic() < deadline, self.events
            time.sleep(0.01)
        return self.events[:count]


@pytest.fixture(params=["", "team:"], ids=["", "with a key prefix"])
def app(redis_url: str, request: pytest.FixtureRequest) -> Iterator[Celery]:
    app = create_celery_app(Settings(redis_url=redis_url, key_prefix=request.param))
    yield app
    app.close()


@pytest.fixture
def events(app: Celery, server: redis.Redis) -> Events:
    prefix = app.conf.broker_transport_options["global_keyprefix"]
    return Events(
        server, hostname="worker@here", channel=f"{prefix}/0.celeryev/task.multi", clock=app.clock.forward
    )


def jobs(*names: str, **options: Any) -> list[ClaimedJob]:
    return [
        claimed_job(Job(id=name, model="churn", instances=[{"secret": "Xyzzy"}] * 2, **options)) for name in names
    ]


def report(
    *outcomes: Outcome, published: bool = True, retried: Sequence[ClaimedJob] = (), seconds: float = 0.1
) -> ClaimReport:
    """Of a claim that ended now, after so many seconds."""
    now = time.monotonic()
    claim = Claim(
        lease=Lease(name="w:1", queue="headrace.churn", origins=()),
        queued_messages=[],
        claimed_ms=time.time_ns() // 1_000_000,
        claimed_monotonic=now,
    )
    return claim_report(
        claim,
        outcomes=outcomes if published else (),
        decisions=ClaimDecisions(
            outcomes={outcome.job: outcome for outcome in outcomes},
            retried=[FailedRun(admitted, ValueError("no")) for admitted in batch_run(retried, None).batch.jobs],
            letters=[(make_letter(failure.job), b"") for failure in outcomes if isinstance(failure, Failure)],
        ),
        times=(now - seconds, now, now),
    )


def test_a_job_s_events_have_the_fields_of_celery_s_own(app: Celery, events: Events):
    with Heard(app) as heard:
        before = time.time()
        events.on_jobs_started(jobs("a", version="3"), datetime.now(UTC))
        events.on_claim_finished(report(SUCCESS, FAILURE, seconds=0.25))
        with app.connection_for_write() as connection:
            own = app.events.Dispatcher(connection, hostname="worker@here", enabled=True)
            own.send("task-started", uuid="own")
        received, started, succeeded, failed, celery = heard.wait_for(5)
    assert set(celery) - {"uuid"} <= ABOUT
    for event in (received, started, succeeded, failed):
        assert set(event) >= set(celery)
        assert event["hostname"] == celery["hostname"]
        assert event["utcoffset"] == celery["utcoffset"]
        assert event["pid"] == os.getpid()
        assert abs(event["timestamp"] - celery["timestamp"]) < 5
        assert before - 0.01 <= event["timestamp"] <= time.time()
    assert set(received) - ABOUT == {
        *("uuid", "name", "args", "kwargs", "root_id", "parent_id", "retries", "eta", "expires"),
    }
    assert (received["type"], received["name"]) == ("task-received", "headrace.predict")
    assert (received["args"], received["kwargs"]) == ("churn@3, 2 instances", "{}")
    assert (started["type"], started["uuid"]) == ("task-started", "a")
    assert (succeeded["type"], succeeded["uuid"]) == ("task-succeeded", "a")
    assert (succeeded["result"], succeeded["runtime"]) == ("churn@3, 2 instances", pytest.approx(0.25))
    assert (failed["type"], failed["uuid"]) == ("task-failed", "b")
    assert (failed["exception"], failed["traceback"]) == ("ValueError: no", "in predict")
    assert (failed["runtime"], failed["version"]) == (pytest.approx(0.25), "3")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_the_offset_and_the_moment_are_right_in_every_zone(
    app: Celery, events: Events, server: redis.Redis, monkeypatch: pytest.MonkeyPatch, zone: str
):
    with Heard(app) as heard:  # the receiver turns a sender's moment into its own
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            now = datetime.now(UTC)
            prefix = app.conf.broker_transport_options["global_keyprefix"]
            channel = f"{prefix}/0.celeryev/task.multi"
            Events(server, hostname="there", channel=channel, clock=app.clock.forward).on_jobs_started(
                jobs("a"), now
            )
            with app.connection_for_write() as connection:
                app.events.Dispatcher(connection, hostname="there", enabled=True).send("task-started", uuid="own")
            ours, _, own = heard.wait_for(3)
        finally:
            monkeypatch.undo()
            time.tzset()
    assert ours["utcoffset"] == own["utcoffset"]
    assert abs(ours["timestamp"] - own["timestamp"]) < 5


@pytest.mark.parametrize(
    ("outcome", "published", "state"),
    [
        (SUCCESS, True, "SUCCESS"),
        (FAILURE, True, "FAILURE"),
        (Cancelled(job="c"), True, "REVOKED"),
        (Expired(job="d"), True, "REVOKED"),
        (SUCCESS, False, "REVOKED"),
    ],
)
def test_a_job_s_state_is_its_outcome(app: Celery, events: Events, outcome: Outcome, published: bool, state: str):
    with Heard(app) as heard:
        events.on_jobs_started(jobs(outcome.job), datetime.now(UTC))
        events.on_claim_finished(report(outcome, published=published))
        seen = heard.wait_for(3)
    kept = State()
    for event in seen:
        kept.event(event)
    assert kept.tasks[outcome.job].state == state
    assert kept.tasks[outcome.job].name == "headrace.predict"


def test_a_job_that_runs_again_is_told_as_retried(app: Celery, events: Events):
    with Heard(app) as heard:
        events.on_jobs_started(jobs("b"), datetime.now(UTC))
        events.on_claim_finished(report(retried=tuple(jobs("b"))))
        with app.connection_for_write() as connection:
            own = app.events.Dispatcher(connection, hostname="worker@here", enabled=True)
            own.send("task-retried", uuid="own", exception="no", traceback="")
        *seen, retried, celery = heard.wait_for(4)
    assert set(retried) == set(celery)
    assert retried["exception"] == "ValueError: no"
    kept = State()
    for event in (*seen, retried):
        kept.event(event)
    assert kept.tasks["b"].state == "RETRY"


def test_no_event_holds_a_payload(app: Celery, events: Events):
    with Heard(app) as heard:
        events.on_jobs_started(
            jobs("a", "b", expires=datetime.now(UTC), metadata={"who": "Xyzzy"}), datetime.now(UTC)
        )
        events.on_claim_finished(report(SUCCESS))
        assert "Xyzzy" not in str(heard.wait_for(5))


def test_nothing_is_sent_of_no_jobs_and_a_redis_that_is_away_is_no_error(app: Celery, server: redis.Redis):
    away = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))
    events = Events(away, hostname="here", channel="/0.celeryev/task.multi", clock=app.clock.forward)
    events.on_jobs_started([], datetime.now(UTC))
    events.on_claim_finished(report(SUCCESS))


def test_a_large_claim_that_somebody_listens_to_tells_every_event(app: Celery, events: Events):
    names = [f"job-{number}" for number in range(100)]
    with Heard(app) as heard:
        events.on_claim_received(100)
        events.on_jobs_started(jobs(*names), datetime.now(UTC))
        ended = [Success(job=name, prediction=SUCCESS.prediction) for name in names]
        events.on_claim_finished(report(*ended))
        told = heard.wait_for(300)
    assert {(one["type"], one["uuid"]) for one in told} == {
        (kind, name) for name in names for kind in ("task-received", "task-started", "task-succeeded")
    }


def test_no_events_are_made_where_nobody_listens_and_a_large_claim_asks_first(
    events: Events, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    made: list[bytes] = []
    publish = events._publish  # what would be sent shows nowhere else when nobody listens
    monkeypatch.setattr(events, "_publish", lambda body: (made.append(body), publish(body)))

    def run(count: int) -> None:
        events.on_claim_received(count)
        events.on_jobs_started(jobs(*map(str, range(count))), datetime.now(UTC))
        events.on_claim_finished(report(SUCCESS))

    run(100)
    assert made == [b"[]"]
    run(1)  # the reply to the question still counts
    assert made == [b"[]"]
    time.sleep(telemetry_events._BELIEVED)
    run(1)
    assert len(made) == 3
    time.sleep(telemetry_events._BELIEVED)
    run(100)
    assert made[3:] == [b"[]"]


def test_a_listener_that_comes_while_none_was_there_is_soon_heard_of(
    app: Celery, events: Events, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(telemetry_events, "_BELIEVED", 0.05)
    names = [f"job-{number}" for number in range(100)]
    events.on_claim_received(100)
    events.on_jobs_started(jobs(*names), datetime.now(UTC))
    with Heard(app) as heard:
        time.sleep(0.05)
        events.on_claim_received(100)
        events.on_jobs_started(jobs(*names), datetime.now(UTC))
        told = heard.wait_for(200)
    assert len(told) == 200


def test_who_comes_while_a_job_runs_hears_of_its_end(app: Celery, events: Events, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(telemetry_events, "_BELIEVED", 0.05)
    events.on_claim_received(16)
    events.on_jobs_started(jobs("a"), datetime.now(UTC))
    with Heard(app) as heard:
        time.sleep(0.05)
        events.on_claim_finished(report(SUCCESS))
        (told,) = heard.wait_for(1)
    assert (told["type"], told["uuid"]) == ("task-succeeded", "a")
