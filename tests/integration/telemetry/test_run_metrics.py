"""The exporter's metrics of bulk runs: their numbers, how many runs are shown, and users who may not read them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from headrace import Settings
from headrace.bulk import list_runs
from headrace.connection.connect import connect
from headrace.wire.keys import Keys
from headrace_worker.telemetry.queue_metrics import QueueCollector
from headrace_worker.telemetry.run_metrics import METRICS
from tests.support.stored_runs import store_run


@pytest.fixture(params=["", "team:"], ids=["", "with a key prefix"])
def settings(redis_url: str, request: pytest.FixtureRequest) -> Settings:
    return Settings(redis_url=redis_url, key_prefix=request.param)


@pytest.fixture
def registry(settings: Settings) -> Iterator[CollectorRegistry]:
    registry, client = CollectorRegistry(), connect(settings)
    registry.register(QueueCollector(lambda: client, settings.key_prefix, list_runs=list_runs))
    yield registry
    client.close()


def run_samples(registry: CollectorRegistry) -> dict[str, float]:
    """Return the numbers of the metrics of runs, by `name{label,label}`."""
    names = {metric.name for metric in METRICS}
    return {
        f"{sample.name.removeprefix('headrace_bulk_')}{{{','.join(sample.labels.values())}}}": sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name in names
    }


def test_every_number_of_a_run_is_shown(
    settings: Settings, server: redis.Redis, registry: CollectorRegistry
) -> None:
    keys, now_ms = Keys(settings.key_prefix), int(time.time() * 1000)
    progress = {"chunks": 20, "chunks_done": 5, "rows": 1000, "rows_done": 250, "rows_failed": 12}
    store_run(server, "nightly", keys=keys, started_ms=now_ms - 60_000, receipt_ms=now_ms - 30_000, **progress)
    store_run(server, "planned-soon", "planning", model="fraud", keys=keys)
    store_run(server, "ready", "success", keys=keys, chunks=1, chunks_done=1, rows_done=10)
    numbers = run_samples(registry)
    assert 30 <= numbers.pop("idle_seconds{nightly}") < 60
    assert 100 <= numbers.pop("idle_seconds{planned-soon}") < 130
    assert numbers == {
        "rows_total{nightly}": 250,
        "rows_total{planned-soon}": 0,
        "rows_total{ready}": 10,
        "failed_rows_total{nightly}": 12,
        "failed_rows_total{planned-soon}": 0,
        "failed_rows_total{ready}": 0,
        "planned_rows{nightly}": 1000,
        "chunks{nightly}": 20,
        "chunks{ready}": 1,
        "chunks_done{nightly}": 5,
        "chunks_done{planned-soon}": 0,
        "chunks_done{ready}": 1,
        "run_state{churn,nightly,running}": 1,
        "run_state{fraud,planned-soon,planning}": 1,
        "run_state{churn,ready,success}": 1,
    }


def test_the_runs_that_go_on_and_the_last_twenty_that_ended_are_shown(
    settings: Settings, server: redis.Redis, registry: CollectorRegistry
) -> None:
    keys, now_ms = Keys(settings.key_prefix), int(time.time() * 1000)
    for number in range(50):
        ended_ms = now_ms - 1000 * number
        store_run(server, f"ended-{number}", "failure", age_seconds=500 - number, keys=keys, ended_ms=ended_ms)
        store_run(server, f"open-{number}", "running", age_seconds=500 - number, keys=keys)
    names = {key[5:-1].rpartition("{")[2] for key in run_samples(registry) if key.startswith("rows_total")}
    assert names == {f"open-{number}" for number in range(50)} | {f"ended-{number}" for number in range(20)}


def test_many_runs_are_bounded_and_a_damaged_one_hides_no_other(
    settings: Settings, server: redis.Redis, registry: CollectorRegistry
) -> None:
    keys = Keys(settings.key_prefix)
    for number in range(300):
        store_run(server, f"run-{number}", "running", age_seconds=1000 - number, keys=keys)
    server.hset(keys.run("run-299"), "state", "nonsense")
    server.delete(keys.run("run-298"))
    server.set(keys.run("run-298"), "of another type")
    names = [key for key in run_samples(registry) if key.startswith("rows_total")]
    assert len(names) == 200
    assert "rows_total{run-297}" in names


def test_a_user_who_may_not_read_runs_gets_all_other_metrics(redis_url: str, server: redis.Redis) -> None:
    names = ("models", "leases", "lease:*", "dead*", "oldest", "paused", "loaded:*", "refused:*")
    names += ("isolated:*", "retried:*", "delayed:*")
    patterns = [f"~headrace:{name}" for name in names]
    server.execute_command("ACL", "SETUSER", "old", "on", ">pw", "~predict.*", "~bulk.*", *patterns, "+@all")
    store_run(server)
    registry = CollectorRegistry()
    url = redis_url.replace("redis://", "redis://old:pw@")
    client = connect(Settings(redis_url=url))
    try:
        registry.register(QueueCollector(lambda: client, list_models=lambda: ["churn"], list_runs=list_runs))
        text = generate_latest(registry).decode()
    finally:
        client.close()
        server.execute_command("ACL", "DELUSER", "old")
    assert "headrace_redis_up 1.0" in text
    assert 'headrace_bulk_backlog{model="churn"} 0.0' in text
    assert "headrace_bulk_rows_total" not in text
