"""Claims are counted for drift in Redis, a few rows of each, and read again."""

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

KEYS = Keys("drift-test:")
AT = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)
CONTRACT = Contract(
    model="churn", version="3", input=Array(shape=(1,)), methods={"predict": Output(shape=(), classes=("a", "b"))}
)
PROFILE = build_profile(CONTRACT, [[float(row)] for row in range(200)], ["a", "b"] * 100)


def model(made: Profile | None = PROFILE) -> Any:
    return SimpleNamespace(
        manifest=SimpleNamespace(name="churn", version="3", contract=CONTRACT, profile=made), contract=CONTRACT
    )


def report(*rows: float, served: Any = None, method: str = "predict", lost: bool = False) -> ClaimReport:
    """A claim of a job for each row; those of a negative one have failed."""
    served = served or model()
    jobs = [Job(id=f"j{place}", model="churn", instances=[[row]]) for place, row in enumerate(rows)]
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
        claimed_ms=int(AT.timestamp() * 1000),
        claimed_monotonic=now,
    )
    run = batch_run(map(claimed_job, jobs), served, method=method, started_at=now, finished_at=now)
    return claim_report(claim, [run], outcomes=outcomes.values(), lease_lost=lost, times=(now, now, now))


@pytest.fixture
def client(server: redis.Redis) -> Iterator[redis.Redis]:
    yield server
    server.delete(*server.keys("drift-test:*"))


def read(client: redis.Redis, *, rows: int, within: float = 10.0) -> tuple[ColumnDrift, ...]:
    """What is there once so many rows are counted."""
    deadline = time.monotonic() + within
    while True:
        found = measure_drift(client, KEYS, model().manifest, AT)
        assert found is not None
        if found[0].rows >= rows or time.monotonic() > deadline:
            assert found[0].rows == rows
            return found
        time.sleep(0.02)


def test_rows_of_many_claims_are_counted_within_a_second_or_so(client: redis.Redis):
    counting = DriftRecorder(client, KEYS)
    for row in range(60):
        counting.on_claim_finished(report(float(row), -1.0))
    feature, prediction = read(client, rows=60)
    assert (feature.name, feature.verdict) == ("0", "drifted")
    assert (prediction.name, prediction.rows) == ("prediction", 60)
    for key in client.keys("drift-test:*"):
        assert client.strlen(key) <= 4 * PROFILE.cells
        assert 48 * 3600 < client.ttl(key) <= 49 * 3600


def test_of_a_large_batch_a_few_rows_from_all_over_are_counted(client: redis.Redis):
    counting = DriftRecorder(client, KEYS)
    counting.on_claim_finished(report(*map(float, range(200))))
    time.sleep(0.1)
    (feature, _) = read(client, rows=29)
    assert feature.psi is None


def test_between_two_writes_so_many_rows_are_counted_and_no_more(client: redis.Redis):
    counting = DriftRecorder(client, KEYS)
    for _ in range(40):
        counting.on_claim_finished(report(*map(float, range(32))))
    read(client, rows=200)


def test_what_was_lost_has_no_profile_or_ran_another_method_is_not_counted(client: redis.Redis):
    counting = DriftRecorder(client, KEYS)
    counting.on_claim_finished(report(1.0, lost=True))
    counting.on_claim_finished(report(1.0, served=model(None)))
    counting.on_claim_finished(report(1.0, method="predict_proba"))
    counting.on_claim_finished(report(1.0))
    read(client, rows=1)


def test_only_the_hours_asked_for_count(client: redis.Redis):
    DriftRecorder(client, KEYS).on_claim_finished(report(1.0))
    read(client, rows=1)
    manifest, later = model().manifest, AT.replace(hour=14)
    for hours, rows in ((2, 0), (3, 1)):
        found = measure_drift(client, KEYS, manifest, later, hours=hours)
        assert found is not None
        assert found[0].rows == rows
    assert measure_drift(client, KEYS, model(None).manifest, AT) is None


def test_the_metric_is_read_now_and_then_and_stays_while_redis_is_away(client: redis.Redis):
    now, asked = 0.0, []

    def connect() -> redis.Redis:
        asked.append(now)
        if now in {30.0, 90.0}:
            raise redis.ConnectionError("away")
        return client

    def rows(shown: DriftCollector) -> list[tuple[str, float]]:
        (family,) = shown.collect()
        return [(one.labels["name"], one.value) for one in family.samples]

    served: Any = SimpleNamespace(
        models=lambda: ["churn"],
        route=lambda _model: SimpleNamespace(versions={"3"}),
        loaded_versions=lambda _model: ("2", "3"),
        get=lambda _model, _version: model(),
    )
    shown = DriftCollector(served, connect, KEYS, clock=lambda: now)
    hour = datetime.fromtimestamp(int(client.time()[0]), UTC)
    assert rows(shown) == []
    for command in add_commands(KEYS, "churn", "3", hour, {0: 100, PROFILE.cells - 3: 100}):
        client.execute_command(*command)
    now = 29.0
    assert rows(shown) == []
    shown._client, now = None, 30.0
    assert rows(shown) == []
    now = 60.0
    assert [name for name, _ in rows(shown)] == ["0", "prediction"]
    shown._client, now = None, 90.0
    assert [name for name, _ in rows(shown)] == ["0", "prediction"]
    assert asked == [0.0, 30.0, 60.0, 90.0]
