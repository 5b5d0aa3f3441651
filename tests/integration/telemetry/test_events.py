"""The events of jobs: Celery's own receiver reads them as it reads Celery's events."""

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
from headrace.wire.attempts import Attempt
from headrace.wire.message import Job
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Prediction, Success
from headrace_worker.execution.claimed_job import ClaimedJob, FailedRun
from headrace_worker.execution.report import ClaimReport
from headrace_worker.execution.settle import ClaimDecisions
from headrace_worker.telemetry import events as telemetry_events
from headrace_worker.telemetry.events import Events
from headrace_worker.transport.claims import Claim, Lease
from tests.support.claim_reports import batch_run, claim_report, claimed_job
from tests.support.waiting import wait_until

#: The fields of every event, of Celery too.
COMMON_FIELDS = {"type", "hostname", "utcoffset", "pid", "clock", "timestamp", "local_received"}
SUCCESS = Success(job="a", prediction=Prediction(model="churn", version="3", predictions=["Xyzzy", "Xyzzy"]))
FAILURE = Failure(
    job="b", reason="permanent", error="ValueError", module="builtins", message="no", traceback="in predict"
)


class Receiver:
    """Celery's receiver, in a thread."""

    def __init__(self, app: Celery) -> None:
        self.events: list[dict[str, Any]] = []
        self._app, self._listening = app, threading.Event()
        self._receiver: Any = None
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        with self._app.connection_for_read() as connection:
            self._receiver = self._app.events.Receiver(connection, handlers={"*": self.events.append})
            with self._receiver.consumer_context(wakeup=False) as (consumer, *_):
                while not self._receiver.should_stop:
                    try:
                        consumer.drain_events(timeout=0.05)
                    except TimeoutError:
                        self._listening.set()

    def __enter__(self) -> Receiver:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join()

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Wait for this many events, and return them."""
        wait_until(lambda: len(self.events) >= count, 10, lambda: self.events)
        return self.events[:count]


@pytest.fixture(params=["", "team:"], ids=["", "with a key prefix"])
def app(redis_url: str, request: pytest.FixtureRequest) -> Iterator[Celery]:
    app = create_celery_app(Settings(redis_url=redis_url, key_prefix=request.param))
    yield app
    app.close()


@pytest.fixture
def events(app: Celery, server: redis.Redis) -> Events:
    prefix = app.conf.broker_transport_options["global_keyprefix"]
    return make_events(server, app, prefix)


def make_events(server: redis.Redis, app: Celery, prefix: str = "") -> Events:
    """Return the publisher of a worker on which version 3 serves."""
    return Events(
        server,
        hostname="worker@here",
        channel=f"{prefix}/0.celeryev/task.multi",
        clock=app.clock.forward,
        version_of=lambda job: job.version or "3",
    )


def jobs(*names: str, **options: Any) -> list[ClaimedJob]:
    return [
        claimed_job(Job(id=name, model="churn", instances=[{"secret": "Xyzzy"}] * 2, **options)) for name in names
    ]


def report(
    *outcomes: Outcome,
    published: bool = True,
    retried: Sequence[ClaimedJob] = (),
    cancelled: Sequence[ClaimedJob] = (),
    seconds: float = 0.1,
) -> ClaimReport:
    """Return the report of a claim that ended now, after `seconds`."""
    now = time.monotonic()
    claim = Claim(
        lease=Lease(name="w:1", queue="predict.churn", origins=()),
        queued_messages=[],
        claimed_ms=time.time_ns() // 1_000_000,
        claimed_monotonic=now,
    )
    return claim_report(
        claim,
        outcomes=outcomes if published else (),
        not_run=[*jobs(*(outcome.job for outcome in outcomes)), *retried],
        cancelled=cancelled,
        decisions=ClaimDecisions(
            outcomes={outcome.job: outcome for outcome in outcomes},
            retried=[FailedRun(admitted, ValueError("no")) for admitted in batch_run(retried, None).batch.jobs],
        ),
        times=(now - seconds, now, now),
    )


def test_a_job_s_events_have_the_fields_of_celery_s_own(app: Celery, events: Events):
    with Receiver(app) as receiver:
        before = time.time()
        events.on_jobs_started(jobs("a", version="3"), datetime.now(UTC))
        events.on_claim_finished(report(SUCCESS, FAILURE, seconds=0.25))
        with app.connection_for_write() as connection:
            own = app.events.Dispatcher(connection, hostname="worker@here", enabled=True)
            own.send("task-started", uuid="own")
        received, started, succeeded, failed, celery = receiver.wait_for(5)
    assert set(celery) - {"uuid"} <= COMMON_FIELDS
    for event in (received, started, succeeded, failed):
        assert set(event) >= set(celery)
        assert (event["model"], event["version"]) == ("churn", "3")
        assert event["hostname"] == celery["hostname"]
        assert event["utcoffset"] == celery["utcoffset"]
        assert event["pid"] == os.getpid()
        assert abs(event["timestamp"] - celery["timestamp"]) < 5
        assert before - 0.01 <= event["timestamp"] <= time.time()
    assert set(received) - COMMON_FIELDS == {
        *("uuid", "name", "args", "kwargs", "root_id", "parent_id", "retries", "eta", "expires"),
        *("model", "version", "runs"),
    }
    assert (received["type"], received["name"]) == ("task-received", "headrace.predict")
    assert (received["args"], received["kwargs"]) == ("churn@3, 2 instances", "{}")
    assert (started["type"], started["uuid"]) == ("task-started", "a")
    assert (succeeded["type"], succeeded["uuid"]) == ("task-succeeded", "a")
    assert (succeeded["result"], succeeded["runtime"]) == ("churn@3, 2 instances", pytest.approx(0.25))
    assert (failed["type"], failed["uuid"]) == ("task-failed", "b")
    assert (failed["exception"], failed["traceback"]) == ("ValueError: no", "in predict")
    assert (failed["reason"], received["runs"], failed["runs"]) == ("permanent", 1, 0)
    assert failed["runtime"] == pytest.approx(0.25)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_the_offset_and_the_timestamp_are_those_of_celery_in_every_time_zone(
    app: Celery, events: Events, server: redis.Redis, monkeypatch: pytest.MonkeyPatch, zone: str
):
    with Receiver(app) as receiver:  # the receiver converts a sender's time to its own zone
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            now = datetime.now(UTC)
            prefix = app.conf.broker_transport_options["global_keyprefix"]
            make_events(server, app, prefix).on_jobs_started(jobs("a"), now)
            with app.connection_for_write() as connection:
                app.events.Dispatcher(connection, hostname="there", enabled=True).send("task-started", uuid="own")
            job_event, _, own = receiver.wait_for(3)
        finally:
            monkeypatch.undo()
            time.tzset()
    assert job_event["utcoffset"] == own["utcoffset"]
    assert abs(job_event["timestamp"] - own["timestamp"]) < 5


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
    with Receiver(app) as receiver:
        events.on_jobs_started(jobs(outcome.job), datetime.now(UTC))
        events.on_claim_finished(report(outcome, published=published))
        received = receiver.wait_for(3)
    state_of_tasks = State()
    for event in received:
        state_of_tasks.event(event)
    assert state_of_tasks.tasks[outcome.job].state == state
    assert state_of_tasks.tasks[outcome.job].name == "headrace.predict"


def test_a_job_with_earlier_attempts_has_its_runs_and_the_moment_since_which_it_waits(app: Celery, events: Events):
    attempts = [
        Attempt(cause=cause, owner="w", at_ms=1_700_000_000_000 + number, claim_size=1)
        for number, cause in enumerate(("crash", "replay", "error:OSError"))
    ]
    job = Job(id="a", model="churn", instances=[1])
    with Receiver(app) as receiver:
        events.on_jobs_started([claimed_job(job, *attempts)], datetime.now(UTC))
        received, _ = receiver.wait_for(2)
    assert (received["retries"], received["runs"], received["waiting_since"]) == (1, 2, 1_700_000_000.002)


def test_a_job_that_runs_again_has_the_state_retry(app: Celery, events: Events):
    with Receiver(app) as receiver:
        events.on_jobs_started(jobs("b"), datetime.now(UTC))
        events.on_claim_finished(report(retried=tuple(jobs("b"))))
        with app.connection_for_write() as connection:
            own = app.events.Dispatcher(connection, hostname="worker@here", enabled=True)
            own.send("task-retried", uuid="own", exception="no", traceback="")
        *earlier, retried, celery = receiver.wait_for(4)
    assert set(retried) == {*celery, "model", "version", "runs"}
    assert (retried["model"], retried["version"]) == ("churn", "3")
    assert retried["exception"] == "ValueError: no"
    state_of_tasks = State()
    for event in (*earlier, retried):
        state_of_tasks.event(event)
    assert state_of_tasks.tasks["b"].state == "RETRY"


def test_a_job_that_was_cancelled_before_it_ran_is_revoked_with_its_model_and_no_version(
    app: Celery, events: Events
):
    with Receiver(app) as receiver:
        events.on_jobs_started(jobs("a"), datetime.now(UTC))
        events.on_claim_finished(report(SUCCESS, cancelled=jobs("c")))
        *_, revoked = receiver.wait_for(4)
    assert (revoked["type"], revoked["uuid"], revoked["name"]) == ("task-revoked", "c", "headrace.predict")
    assert (revoked["model"], revoked["version"], revoked["expired"]) == ("churn", None, False)


@pytest.mark.parametrize("idle_seconds", [0.0, 1.2 * telemetry_events._SUBSCRIBERS_TTL_SECONDS])
def test_events_on_a_connection_that_was_closed_are_received_once_and_in_order(
    app: Celery, events: Events, server: redis.Redis, idle_seconds: float
):
    with Receiver(app) as receiver:
        for number in range(4):
            job = Success(job=str(number), prediction=SUCCESS.prediction)
            events.on_claim_received(1)
            events.on_jobs_started(jobs(job.job), datetime.now(UTC))
            events.on_claim_finished(report(job))
            wait_until(lambda: receiver.wait_for(3 * (number + 1)), 10)  # noqa: B023  # called at once
            kill_publishers(server)
            time.sleep(idle_seconds)
        received = [(event["uuid"], event["type"]) for event in receiver.wait_for(12)]
    kinds = ("task-received", "task-started", "task-succeeded")
    assert received == [(str(number), kind) for number in range(4) for kind in kinds]


def test_the_start_of_a_job_after_a_long_pause_is_not_held_up_by_a_closed_connection(
    app: Celery, events: Events, server: redis.Redis
):
    with Receiver(app) as receiver:
        events.on_jobs_started(jobs("a"), datetime.now(UTC))
        receiver.wait_for(2)
        kill_publishers(server)
        time.sleep(1.2 * telemetry_events._SUBSCRIBERS_TTL_SECONDS)
        events.on_claim_received(1)
        events.on_jobs_started(jobs("b"), datetime.now(UTC))  # and its claim runs for hours
        assert [event["uuid"] for event in receiver.wait_for(4)] == ["a", "a", "b", "b"]


def kill_publishers(server: redis.Redis) -> None:
    """Close the connections that published events, as a proxy closes idle ones."""
    publishers = [client["id"] for client in server.client_list() if client["cmd"] == "publish"]
    assert publishers
    for publisher in publishers:
        server.client_kill_filter(_id=publisher)


def test_no_event_holds_a_payload(app: Celery, events: Events):
    with Receiver(app) as receiver:
        events.on_jobs_started(
            jobs("a", "b", expires=datetime.now(UTC), metadata={"customer": "Xyzzy"}), datetime.now(UTC)
        )
        events.on_claim_finished(report(SUCCESS))
        assert "Xyzzy" not in str(receiver.wait_for(5))


def test_a_claim_without_jobs_has_no_events_and_an_unreachable_redis_is_no_error(app: Celery, server: redis.Redis):
    unreachable = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))
    events = make_events(unreachable, app)
    events.on_jobs_started([], datetime.now(UTC))
    events.on_claim_finished(report(SUCCESS))


def test_a_subscriber_receives_every_event_of_a_large_claim(app: Celery, events: Events):
    names = [f"job-{number}" for number in range(100)]
    with Receiver(app) as receiver:
        events.on_claim_received(100)
        events.on_jobs_started(jobs(*names), datetime.now(UTC))
        outcomes = [Success(job=name, prediction=SUCCESS.prediction) for name in names]
        events.on_claim_finished(report(*outcomes))
        received = receiver.wait_for(300)
    assert {(event["type"], event["uuid"]) for event in received} == {
        (kind, name) for name in names for kind in ("task-received", "task-started", "task-succeeded")
    }


def test_without_subscribers_no_events_are_made_and_a_large_claim_publishes_an_empty_group_first(
    events: Events, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    groups: list[bytes] = []
    publish = events._publish  # without a subscriber, only a spy can see the groups
    monkeypatch.setattr(events, "_publish", lambda body: (groups.append(body), publish(body)))

    def run(count: int) -> None:
        events.on_claim_received(count)
        events.on_jobs_started(jobs(*map(str, range(count))), datetime.now(UTC))
        events.on_claim_finished(report(SUCCESS))

    run(100)
    assert groups == [b"[]"]
    run(1)  # the number of subscribers is still trusted
    assert groups == [b"[]"]
    time.sleep(telemetry_events._SUBSCRIBERS_TTL_SECONDS)
    run(1)
    assert len(groups) == 3
    time.sleep(telemetry_events._SUBSCRIBERS_TTL_SECONDS)
    run(100)
    assert groups[3:] == [b"[]"]


def test_a_new_subscriber_soon_receives_events(app: Celery, events: Events, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(telemetry_events, "_SUBSCRIBERS_TTL_SECONDS", 0.05)
    names = [f"job-{number}" for number in range(100)]
    events.on_claim_received(100)
    events.on_jobs_started(jobs(*names), datetime.now(UTC))
    with Receiver(app) as receiver:
        time.sleep(0.05)
        events.on_claim_received(100)
        events.on_jobs_started(jobs(*names), datetime.now(UTC))
        assert len(receiver.wait_for(200)) == 200


def test_a_client_that_subscribes_while_a_job_runs_receives_its_end(
    app: Celery, events: Events, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(telemetry_events, "_SUBSCRIBERS_TTL_SECONDS", 0.05)
    events.on_claim_received(16)
    events.on_jobs_started(jobs("a"), datetime.now(UTC))
    with Receiver(app) as receiver:
        time.sleep(0.05)
        events.on_claim_finished(report(SUCCESS))
        (event,) = receiver.wait_for(1)
    assert (event["type"], event["uuid"]) == ("task-succeeded", "a")


@pytest.mark.parametrize(
    ("classes", "result"),
    [
        (("no", "yes"), "churn@3, 1 instance, values of no, yes"),
        (tuple(range(12)), "churn@3, 1 instance, values of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
    ],
)
def test_the_result_of_probabilities_names_their_classes(
    app: Celery, events: Events, classes: tuple[Any, ...], result: str
):
    values = [[1 / len(classes)] * len(classes)]
    prediction = Prediction(model="churn", version="3", predictions=values, classes=classes)
    with Receiver(app) as receiver:
        events.on_claim_finished(report(Success(job="a", prediction=prediction)))
        (succeeded,) = receiver.wait_for(1)
    assert succeeded["result"] == result
