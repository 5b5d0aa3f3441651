"""A model's errors reach Sentry, each once, and no value of a job goes with them."""

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

#: Values of instances that must not leave the worker.
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
    """The Redis of a worker that reports to the endpoint."""
    with EmbeddedRedis("--appendfsync", "no") as redis:
        settings = {**hostile_models.SERVING, "SENTRY_DSN": sentry.dsn, "SENTRY_ENVIRONMENT": "testing"}
        worker = start_worker(redis.url, folder / "models", folder, concurrency=2, **settings)
        try:
            sentry.checked = sentry.wait("check_in", lambda _: True)  # the next comes a minute later
            yield redis.url
        finally:
            worker.stop()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def fail(client: Client, do: str = "raise") -> JobHandle:
    job = client.submit("obedient", hostile_models.instance(do, secret=WORD, size=NUMBER))
    with pytest.raises(JobFailed):
        job.result(timeout=20)
    return job


def event_of(sentry: Sentry, job: JobHandle) -> dict[str, Any]:
    return sentry.wait("event", lambda event: event.get("tags", {}).get("headrace.job") == job.id)


def test_an_error_of_a_model_arrives_with_its_job_model_version_and_release(client: Client, sentry: Sentry):
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
    assert any(frame["function"] == "_obey" for frame in raised["stacktrace"]["frames"])


def test_every_error_arrives_once_and_bad_input_never(client: Client, url: str, sentry: Sentry):
    sentry.bodies.clear()
    good = client.submit_many("obedient", [hostile_models.instance()] * 20)
    failed = [fail(client, do) for do in ("raise", "raise from", "exit", "eat memory", "raise")]
    with Client(url, check=False) as careless:
        for bad in ({"do": WORD}, hostile_models.instance(size=10**400), WORD, None):
            with pytest.raises(JobFailed):
                careless.predict("obedient", instances=[bad], timeout=20)
        with pytest.raises(JobFailed):
            careless.predict("obedient", hostile_models.instance(), version="9", timeout=20)
    for job in good:
        job.result(timeout=20)
    last = fail(client)  # what was sent before it has arrived when it has
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


def test_jobs_that_fail_alike_in_a_batch_are_one_event(client: Client, sentry: Sentry):
    sentry.bodies.clear()
    instances = [hostile_models.instance("raise", secret=WORD)] * 64
    jobs = client.submit_many("obedient", [*instances, *[hostile_models.instance("exit")] * 2])
    for job in jobs:
        with pytest.raises(JobFailed):
            job.result(timeout=30)
    named = {job.id for job in jobs}

    def told() -> list[dict[str, Any]]:
        return [
            event["contexts"]["headrace"]
            for event in sentry.events
            if event.get("tags", {}).get("headrace.job") in named
        ]

    # Each pool process sends its own, so that none is the last.
    wait_until(lambda: sum(about["jobs"] for about in told()) >= 66)
    event_of(sentry, fail(client))
    assert sum(about["jobs"] for about in told()) == 66
    assert len(told()) < 16  # one for each kind and claim
    assert all(len(about["ids"]) <= 10 for about in told())
    assert WORD not in b"".join(sentry.bodies).decode()


def test_a_crash_and_the_job_given_up_for_it_are_reported(client: Client, sentry: Sentry):
    job = client.submit("obedient", hostile_models.instance("kill", secret=WORD))
    with pytest.raises(JobFailed):
        job.result(timeout=30)
    event = event_of(sentry, job)
    assert event["tags"]["headrace.reason"] == "crash"
    assert event["tags"]["headrace.attempt"] == "3"
    assert event["message"] == "jobs of obedient failed: crash"
    crashes = [one for one in sentry.events if "exited prematurely" in json.dumps(one.get("logentry"))]
    assert crashes
    assert WORD not in b"".join(sentry.bodies).decode()


def test_a_lease_whose_owner_was_lost_is_reported(client: Client, url: str, sentry: Sentry):
    with redis.Redis.from_url(url) as server:
        leases = Leases(server, Keys())
        server.lpush(Keys().lists("predict.obedient")[0], b"")  # so that there is something to take
        while not isinstance(
            claimed := leases.claim("lost/1", [ClaimLimits(queue="predict.obedient")], lease_ms=1), Claim
        ):
            server.lpush(Keys().lists("predict.obedient")[0], b"")  # the worker was quicker
    assert claimed.lease.owner == "lost"
    event = sentry.wait("event", lambda event: "owner of a claim" in json.dumps(event.get("logentry")), 30)
    assert event["level"] == "error"


@pytest.mark.usefixtures("url")
def test_the_sweeper_checks_in(sentry: Sentry):
    checked = sentry.checked
    assert checked["monitor_slug"] == "headrace-sweeper"
    assert (checked["status"], checked["environment"]) == ("ok", "testing")
    assert checked["monitor_config"]["schedule"] == {"type": "interval", "value": 1, "unit": "minute"}


SUBMITS = """
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


def submitted_by_a_service(sentry: Sentry, url: str, rate: float) -> tuple[str, str]:
    """A job that a service with Sentry of its own has submitted, and the id of its trace."""
    command = [sys.executable, "-c", SUBMITS, sentry.dsn, url, str(rate)]
    job, trace = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout.split()
    return job, trace


def test_a_sampled_job_has_spans_for_the_queues_page_in_its_producers_trace(
    client: Client, url: str, sentry: Sentry
):
    job, trace = submitted_by_a_service(sentry, url, 1.0)
    service = sentry.wait("transaction", lambda one: one["transaction"] == "/predict")
    (publish,) = [span for span in service["spans"] if span["op"] == "queue.publish"]
    assert publish["data"]["messaging.message.id"] == job
    assert publish["data"]["messaging.destination.name"] == "predict.obedient"
    worker = sentry.wait("transaction", lambda one: one["transaction"] == "predict.obedient")
    assert worker["contexts"]["trace"]["trace_id"] == trace
    assert worker["contexts"]["trace"]["parent_span_id"] == publish["span_id"]
    (process,) = [span for span in worker["spans"] if span["op"] == "queue.process"]
    data = process["data"]
    assert (data["messaging.message.id"], data["messaging.destination.name"]) == (job, "predict.obedient")
    assert data["messaging.message.retry.count"] == 0
    assert 0 <= data["messaging.message.receive.latency"] < 20_000
    assert data["messaging.message.body.size"] > 100
    assert process["status"] == "ok"


def test_a_job_whose_trace_is_not_sampled_costs_nothing(client: Client, url: str, sentry: Sentry):
    sentry.bodies.clear()
    submitted_by_a_service(sentry, url, 0.0)
    client.predict("obedient", hostile_models.instance(), timeout=20)
    event_of(sentry, fail(client))  # what was sent before it has arrived when it has
    assert sentry.of("transaction") == []


def test_a_worker_works_the_same_while_the_endpoint_is_down(client: Client, sentry: Sentry):
    sentry.stop()
    try:
        for _ in range(3):
            fail(client)
            assert client.predict("obedient", hostile_models.instance(size=2), timeout=20).prediction == 4
    finally:
        sentry.start()
    event_of(sentry, fail(client))


def test_a_dsn_that_is_none_is_one_sentence(folder: Path):
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
