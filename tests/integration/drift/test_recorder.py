"""The drift recorder counts a sample of each claim in Redis; the counts are read back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from headrace.catalog.contract import Array, Contract, Output
from headrace.wire.keys import Keys
from headrace.wire.message import Job
from headrace.wire.outcome import Failure, Prediction, Success
from headrace_worker.drift.collector import DriftCollector
from headrace_worker.drift.psi import ColumnDrift, add_commands, measure_drift
from headrace_worker.drift.recorder import DriftRecorder
from headrace_worker.execution.report import ClaimReport
from headrace_worker.profile import Profile, build_profile
from headrace_worker.transport.claims import Claim, Lease
from tests.support.claim_reports import batch_run, claim_report, claimed_job
from tests.support.waiting import wait_until

KEYS = Keys("drift-test:")
NOW = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)
CONTRACT = Contract(
    model="churn", version="3", input=Array(shape=(1,)), methods={"predict": Output(shape=(), classes=("a", "b"))}
)
PROFILE = build_profile(CONTRACT, [[float(row)] for row in range(200)], ["a", "b"] * 100)


def model(profile: Profile | None = PROFILE) -> Any:
    return SimpleNamespace(
        manifest=SimpleNamespace(name="churn", version="3", contract=CONTRACT, profile=profile), contract=CONTRACT
    )


def report(*rows: float, served: Any = None, method: str = "predict", lost: bool = False) -> ClaimReport:
    """Return the report of a claim with a job for each row; jobs of negative rows failed."""
    served = served or model()
    jobs = [Job(id=f"j{number}", model="churn", instances=[[row]]) for number, row in enumerate(rows)]
    outcomes = {
        job.id: Failure(job=job.id, reason="permanent", error="E", module="m", message="")
        if job.instances[0][0] < 0
        else Success(job=job.id, prediction=Prediction(model="churn", version="3", predictions=["a"]))
        for job in jobs
    }
    now = time.monotonic()
    claim = Claim(
        lease=Lease(name="w/1", queue="predict.churn", origins=()),
        queued_messages=(),
        claimed_ms=int(NOW.timestamp() * 1000),
        claimed_monotonic=now,
    )
    run = batch_run(map(claimed_job, jobs), served, method=method, started_at=now, finished_at=now)
    return claim_report(claim, [run], outcomes=outcomes.values(), lease_lost=lost, times=(now, now, now))


@pytest.fixture
def client(server: redis.Redis) -> Iterator[redis.Redis]:
    yield server
    server.delete(*server.keys("drift-test:*"))


def wait_for_drift(client: redis.Redis, *, rows: int) -> tuple[ColumnDrift, ...]:
    """Wait until rows are counted, check that there are no more, and return the drift of each column."""

    def columns() -> tuple[ColumnDrift, ...]:
        drift = measure_drift(client, KEYS, model().manifest, NOW)
        assert drift is not None
        return drift if drift[0].rows >= rows else ()

    drift = wait_until(columns, 10)
    assert drift[0].rows == rows
    return drift


def test_rows_of_many_claims_are_counted_within_seconds(client: redis.Redis):
    recorder = DriftRecorder(client, KEYS)
    for row in range(60):
        recorder.on_claim_finished(report(float(row), -1.0))
    feature, prediction = wait_for_drift(client, rows=60)
    assert (feature.name, feature.verdict) == ("0", "drifted")
    assert (prediction.name, prediction.rows) == ("prediction", 60)
    for key in client.keys("drift-test:*"):
        assert client.strlen(key) <= 4 * PROFILE.cells
        assert 48 * 3600 < client.ttl(key) <= 49 * 3600


def test_a_sample_of_a_large_batch_is_counted(client: redis.Redis):
    recorder = DriftRecorder(client, KEYS)
    recorder.on_claim_finished(report(*map(float, range(200))))
    time.sleep(0.1)
    (feature, _) = wait_for_drift(client, rows=29)
    assert feature.psi is None


def test_the_rows_counted_between_two_writes_are_bounded(client: redis.Redis):
    recorder = DriftRecorder(client, KEYS)
    for _ in range(40):
        recorder.on_claim_finished(report(*map(float, range(32))))
    wait_for_drift(client, rows=200)


def test_a_lost_claim_a_version_without_profile_and_another_method_are_not_counted(client: redis.Redis):
    recorder = DriftRecorder(client, KEYS)
    recorder.on_claim_finished(report(1.0, lost=True))
    recorder.on_claim_finished(report(1.0, served=model(None)))
    recorder.on_claim_finished(report(1.0, method="predict_proba"))
    recorder.on_claim_finished(report(1.0))
    wait_for_drift(client, rows=1)


def test_only_the_requested_hours_are_counted(client: redis.Redis):
    DriftRecorder(client, KEYS).on_claim_finished(report(1.0))
    wait_for_drift(client, rows=1)
    manifest, later = model().manifest, NOW.replace(hour=14)
    for hours, rows in ((2, 0), (3, 1)):
        drift = measure_drift(client, KEYS, manifest, later, hours=hours)
        assert drift is not None
        assert drift[0].rows == rows
    assert measure_drift(client, KEYS, model(None).manifest, NOW) is None


def test_the_metric_is_read_every_30_seconds_and_stays_while_redis_is_unreachable(client: redis.Redis):
    now, connections = 0.0, []

    def connect() -> redis.Redis:
        connections.append(now)
        if now in {30.0, 90.0}:
            raise redis.ConnectionError("unreachable")
        return client

    def columns(collector: DriftCollector) -> list[str]:
        (family,) = collector.collect()
        return [sample.labels["name"] for sample in family.samples]

    served: Any = SimpleNamespace(
        models=lambda: ["churn"],
        route=lambda _model: SimpleNamespace(versions={"3"}),
        loaded_versions=lambda _model: ("2", "3"),
        get=lambda _model, _version: model(),
    )
    collector = DriftCollector(served, connect, KEYS, clock=lambda: now)
    hour = datetime.fromtimestamp(int(client.time()[0]), UTC)
    assert columns(collector) == []
    for command in add_commands(KEYS, "churn", "3", hour, {0: 100, PROFILE.cells - 3: 100}):
        client.execute_command(*command)
    now = 29.0
    assert columns(collector) == []
    collector._client, now = None, 30.0
    assert columns(collector) == []
    now = 60.0
    assert columns(collector) == ["0", "prediction"]
    collector._client, now = None, 90.0
    assert columns(collector) == ["0", "prediction"]
    assert connections == [0.0, 30.0, 60.0, 90.0]
