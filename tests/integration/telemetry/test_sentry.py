"""Reports to Sentry: each error of a model is sent once, without values of a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import headrace
from headrace import Client, JobFailed, JobHandle
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import start_worker
from headrace_worker.store.store import Store
from headrace_worker.transport.claims import Claim, ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support import hostile_models
from tests.support.sentry_endpoint import Sentry
from tests.support.waiting import wait_until

#: Values of instances that Sentry must not receive.
WORD, NUMBER = "Rumpelstiltskin", 47118.15


@pytest.fixture(scope="module")
def sentry() -> Iterator[Sentry]:
    sentry = Sentry()
    yield sentry
    sentry.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stack")
    hostile_models.add(Store(folder / "models"))
    return folder


@pytest.fixture(scope="module")
def url(sentry: Sentry, folder: Path) -> Iterator[str]:
    """The URL of the Redis of a worker that reports to the endpoint."""
    with EmbeddedRedis("--appendfsync", "no") as redis:
        settings = {**hostile_models.SERVING, "SENTRY_DSN": sentry.dsn, "SENTRY_ENVIRONMENT": "testing"}
        worker = start_worker(redis.url, folder / "models", folder, concurrency=2, **settings)
        try:
            sentry.first_check_in = sentry.wait("check_in", lambda _: True)  # the next is a minute later
            yield redis.url
        finally:
            worker.stop()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def fail(client: Client, do: str = "raise") -> JobHandle:
    """Submit a job that fails, and wait until it has."""
    job = client.submit("obedient", hostile_models.instance(do, secret=WORD, size=NUMBER))
    with pytest.raises(JobFailed):
        job.result(timeout=20)
    return job


def event_of(sentry: Sentry, job: JobHandle) -> dict[str, Any]:
    return sentry.wait("event", lambda event: event.get("tags", {}).get("headrace.job") == job.id)


def test_an_error_of_a_model_is_sent_with_its_job_model_version_and_release(client: Client, sentry: Sentry):
    job = fail(client)
    event = event_of(sentry, job)
    tags = {name: value for name, value in event["tags"].items() if name.startswith("headrace.")}
    assert tags == {
        "headrace.job": job.id,
        "headrace.model": "obedient",
        "headrace.version": "1",
        "headrace.attempt": "1",
    }
    assert event["contexts"]["headrace"]["ids"] == [job.id]
    assert event["environment"] == "testing"
    assert event["release"] == f"headrace-worker@{headrace.__version__}"
    [raised] = event["exception"]["values"]
    assert raised["type"] == "ValueError"
    assert raised["value"].startswith("no prediction for {'")
    assert any(frame["function"] == "_execute" for frame in raised["stacktrace"]["frames"])


def test_every_error_is_sent_once_and_bad_input_never(client: Client, url: str, sentry: Sentry):
    event_of(sentry, fail(client))  # behind the events of earlier tests
    sentry.bodies.clear()
    good = client.submit_many("obedient", [hostile_models.instance()] * 20)
    failed = [fail(client, do) for do in ("raise", "raise from", "exit", "eat memory", "raise")]
    with Client(url, check=False) as unchecked:
        for bad in ({"do": WORD}, hostile_models.instance(size=10**400), WORD, None):
            with pytest.raises(JobFailed):
                unchecked.predict("obedient", instances=[bad], timeout=20)
        with pytest.raises(JobFailed):
            unchecked.predict("obedient", hostile_models.instance(), version="9", timeout=20)
    for job in good:
        job.result(timeout=20)
    last = fail(client)  # events arrive in order, so all earlier ones have arrived
    event_of(sentry, last)
    for job in failed:
        event_of(sentry, job)
    jobs = [event.get("tags", {}).get("headrace.job") for event in sentry.events]
    assert sorted(map(str, jobs)) == sorted(job.id for job in [*failed, last])


@pytest.mark.parametrize("do", ["raise", "raise from", "eat memory"])
def test_no_value_of_a_job_leaves_the_worker(client: Client, sentry: Sentry, do: str):
    event_of(sentry, fail(client, do))
    for body in sentry.bodies:
        text = body.decode()
        assert WORD not in text
        assert str(NUMBER) not in text
        assert "47118" not in text
        assert '"vars"' not in text
        assert "celery-job" not in text
        assert "sys.argv" not in text
        assert "breadcrumbs" not in text or '"breadcrumbs":{"values":[]}' in text


def test_jobs_of_a_claim_that_fail_in_the_same_way_are_one_event(client: Client, sentry: Sentry):
    sentry.bodies.clear()
    instances = [hostile_models.instance("raise", secret=WORD)] * 64
    jobs = client.submit_many("obedient", [*instances, *[hostile_models.instance("exit")] * 2])
    for job in jobs:
        with pytest.raises(JobFailed):
            job.result(timeout=30)
    job_ids = {job.id for job in jobs}

    def contexts() -> list[dict[str, Any]]:
        return [
            event["contexts"]["headrace"]
            for event in sentry.events
            if event.get("tags", {}).get("headrace.job") in job_ids
        ]

    # Each pool process sends its own events, so a later event does not show that all have arrived.
    wait_until(lambda: sum(context["jobs"] for context in contexts()) >= 66)
    event_of(sentry, fail(client))
    assert sum(context["jobs"] for context in contexts()) == 66
    assert len(contexts()) < 16  # one for each error and claim
    assert all(len(context["ids"]) <= 10 for context in contexts())
    assert WORD not in b"".join(sentry.bodies).decode()


def test_a_crash_and_the_job_that_failed_after_it_are_reported(client: Client, sentry: Sentry):
    job = client.submit("obedient", hostile_models.instance("kill", secret=WORD))
    with pytest.raises(JobFailed):
        job.result(timeout=30)
    event = event_of(sentry, job)
    assert event["tags"]["headrace.reason"] == "crash"
    assert event["tags"]["headrace.attempt"] == "3"
    assert event["message"] == "jobs of obedient failed: crash"
    crashes = [event for event in sentry.events if "exited prematurely" in json.dumps(event.get("logentry"))]
    assert crashes
    assert WORD not in b"".join(sentry.bodies).decode()


def test_a_lease_whose_owner_was_lost_is_reported(client: Client, url: str, sentry: Sentry):
    with redis.Redis.from_url(url) as server:
        leases = Leases(server, Keys())
        server.lpush(Keys().lists("predict.obedient")[0], b"")  # so that there is a message to claim
        while not isinstance(
            claimed := leases.claim("lost/1", [ClaimLimits(queue="predict.obedient")], lease_ms=1), Claim
        ):
            server.lpush(Keys().lists("predict.obedient")[0], b"")  # the worker has claimed it first
    assert claimed.lease.owner == "lost"
    event = sentry.wait("event", lambda event: "worker of a claim" in json.dumps(event.get("logentry")))
    assert event["level"] == "error"


@pytest.mark.usefixtures("url")
def test_the_sweeper_checks_in(sentry: Sentry):
    check_in = sentry.first_check_in
    assert check_in["monitor_slug"] == "headrace-sweeper"
    assert (check_in["status"], check_in["environment"]) == ("ok", "testing")
    assert check_in["monitor_config"]["schedule"] == {"type": "interval", "value": 1, "unit": "minute"}


SERVICE = """
import sys
import sentry_sdk
from headrace import Client

dsn, url, rate = sys.argv[1:]
sentry_sdk.init(dsn, traces_sample_rate=float(rate), default_integrations=False)
with Client(url) as client, sentry_sdk.start_transaction(op="http.server", name="/predict") as transaction:
    job = client.submit("obedient", {"do": "predict", "secret": "none", "size": 2.0})
    job.result(timeout=20)
    print(job.id, transaction.trace_id)
sentry_sdk.flush()
"""


def submit_as_a_service(sentry: Sentry, url: str, rate: float) -> tuple[str, str]:
    """Submit a job from a service with its own Sentry, and return the ids of the job and of the trace."""
    command = [sys.executable, "-c", SERVICE, sentry.dsn, url, str(rate)]
    job, trace = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout.split()
    return job, trace


def test_a_sampled_job_has_spans_for_the_queues_page_in_its_producers_trace(
    client: Client, url: str, sentry: Sentry
):
    job, trace = submit_as_a_service(sentry, url, 1.0)
    service = sentry.wait("transaction", lambda transaction: transaction["transaction"] == "/predict")
    (publish,) = [span for span in service["spans"] if span["op"] == "queue.publish"]
    assert publish["data"]["messaging.message.id"] == job
    assert publish["data"]["messaging.destination.name"] == "predict.obedient"
    worker = sentry.wait("transaction", lambda transaction: transaction["transaction"] == "predict.obedient")
    assert worker["contexts"]["trace"]["trace_id"] == trace
    assert worker["contexts"]["trace"]["parent_span_id"] == publish["span_id"]
    (process,) = [span for span in worker["spans"] if span["op"] == "queue.process"]
    data = process["data"]
    assert (data["messaging.message.id"], data["messaging.destination.name"]) == (job, "predict.obedient")
    assert data["messaging.message.retry.count"] == 0
    assert 0 <= data["messaging.message.receive.latency"] < 20_000
    assert data["messaging.message.body.size"] > 100
    assert process["status"] == "ok"


def test_a_job_whose_trace_is_not_sampled_has_no_transaction(client: Client, url: str, sentry: Sentry):
    sentry.bodies.clear()
    submit_as_a_service(sentry, url, 0.0)
    client.predict("obedient", hostile_models.instance(), timeout=20)
    event_of(sentry, fail(client))  # events arrive in order, so all earlier ones have arrived
    assert sentry.items("transaction") == []


def test_jobs_run_while_the_endpoint_is_down(client: Client, sentry: Sentry):
    sentry.stop()
    try:
        for _ in range(3):
            fail(client)
            assert client.predict("obedient", hostile_models.instance(size=2), timeout=20).prediction == 4
    finally:
        sentry.start()
    event_of(sentry, fail(client))


def test_an_invalid_dsn_is_an_error_of_one_sentence(folder: Path):
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", "worker", "--store", str(folder / "models")],
        env={**os.environ, "SENTRY_DSN": "not a dsn"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.endswith(
        "headrace: SENTRY_DSN is not a DSN; copy it from the project's settings in Sentry\n"
    )
    assert "Traceback" not in done.stderr


def test_redis_commands_make_no_spans(sentry: Sentry):
    program = """
import redis
from headrace_worker.telemetry import sentry
execute_command = redis.Redis.execute_command
assert sentry.start("1")
assert redis.Redis.execute_command is execute_command
"""
    environ = {**os.environ, "SENTRY_DSN": sentry.dsn}
    completed = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=60
    )
    assert completed.returncode == 0, completed.stderr
