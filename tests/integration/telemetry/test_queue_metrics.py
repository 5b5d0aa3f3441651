"""The exporter's metrics: the queues, leases, dead letters and models of a Redis, or that it does not answer."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from headrace import Client, Settings
from headrace.bulk import list_runs
from headrace.catalog.contract import Array, Contract, Output
from headrace.catalog.published import publish_contract
from headrace.catalog.workers import publish_status
from headrace.connection.commands import execute
from headrace.connection.connect import connect
from headrace.inspection.oldest import report_command
from headrace.wire.keys import Keys
from headrace_worker.telemetry.queue_metrics import METRICS, QueueCollector
from headrace_worker.telemetry.worker_classes import WorkerClass
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support.connections import free_port
from tests.support.stored_dead_letters import make_letter, store_letter

CLASSES = [WorkerClass("forest", ("churn", "fraud"))]


@pytest.fixture(params=["", "team:"], ids=["", "with a key prefix"])
def settings(redis_url: str, request: pytest.FixtureRequest) -> Settings:
    return Settings(redis_url=redis_url, key_prefix=request.param)


@pytest.fixture
def registry(settings: Settings) -> Iterator[CollectorRegistry]:
    registry, client = CollectorRegistry(), connect(settings)
    registry.register(QueueCollector(lambda: client, settings.key_prefix, classes=CLASSES, list_runs=list_runs))
    yield registry
    client.close()


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Return the numbers of all metrics, by `name{label,label}`."""
    text = generate_latest(registry).decode()
    return {
        f"{sample.name.removeprefix('headrace_')}{{{','.join(sample.labels.values())}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def publish_models(server: redis.Redis, keys: Keys, *models: str) -> None:
    for model in models:
        methods = {"predict": Output(shape=())}
        publish_contract(
            server, keys, Contract(model=model, version="1", input=Array(shape=(1,)), methods=methods)
        )


def test_a_redis_without_models_has_only_metrics_without_a_model(registry: CollectorRegistry) -> None:
    numbers = samples(registry)
    assert numbers.pop("exporter_read_seconds{}") < 5
    numbers = {name: number for name, number in numbers.items() if "churn" not in name and "fraud" not in name}
    assert numbers == {
        "redis_up{}": 1,
        "class_backlog{forest}": 0,
        "leases_expired{}": 0,
        "dead_letters{}": 0,
        "dead_letters_dropped_total{}": 0,
        **{f"notices{{{state}}}": 0 for state in ("open", "waiting", "late")},
        **{f"listener_jobs{{{state}}}": 0 for state in ("open", "waiting")},
    }


def test_every_queue_lease_dead_letter_and_version_is_counted(
    settings: Settings, server: redis.Redis, registry: CollectorRegistry
) -> None:
    keys = Keys(settings.key_prefix)
    publish_models(server, keys, "churn", "fraud")
    server.sadd(keys.models, b'evil"} 1\n', b"\xff")
    with Client(settings=settings) as client:
        client.submit_many("churn", [[n] for n in range(5)])
        client.submit_many("churn", [[n] for n in range(3)], priority=9)
        client.pause("churn")
    Leases(server, keys).claim("w/1", [ClaimLimits(queue="predict.churn", jobs=2, bytes=10**6)], lease_ms=0)
    server.rpush(keys.lists("bulk.churn")[3], b"a message", b"another")
    Leases(server, keys).claim("w/2", [ClaimLimits(queue="bulk.churn")], lease_ms=60_000)
    server.zadd(keys.delayed("bulk.churn"), {b"a message": 4e12})
    server.zadd(keys.delayed("predict.churn"), {b"a message": 4e12, b"one that is due": 1, b"another": 2})
    execute(server, publish_status(keys, "churn", "w@1", ["1", "2"], {"3": "it fails"}))
    execute(server, publish_status(keys, "churn", "w@2", ["2"], {}))
    store_letter(server, make_letter("a"), keys=keys)
    execute(server, report_command(keys, ["churn", "fraud"]))
    server.rpush(keys.isolated("predict.fraud"), b"a message")
    time.sleep(0.05)
    numbers = samples(registry)
    for model in ("churn", "fraud"):
        assert 0.05 <= numbers.pop(f"queue_oldest_seconds{{{model}}}") < 20
    assert numbers.pop("exporter_read_seconds{}") < 5
    assert numbers == {
        "redis_up{}": 1,
        **{f"queue_waiting{{churn,{step}}}": jobs for step, jobs in ((0, 3), (3, 0), (6, 0), (9, 3))},
        **{f"queue_waiting{{fraud,{step}}}": 0 for step in (0, 3, 6, 9)},
        **{f"queue_{metric}{{fraud}}": 0 for metric in ("delayed", "due", "leased")},
        "backlog{churn}": 2,
        "backlog{fraud}": 1,
        "class_backlog{forest}": 4,
        "queue_isolated{fraud}": 1,
        "queue_paused{churn}": 1,
        "queue_paused{fraud}": 0,
        "queue_isolated{churn}": 0,
        "queue_delayed{churn}": 1,
        "queue_due{churn}": 2,
        "queue_leased{churn}": 2,
        "bulk_backlog{churn}": 1,
        "bulk_queue_waiting{churn}": 1,
        "bulk_queue_delayed{churn}": 1,
        "bulk_queue_leased{churn}": 1,
        **{
            f"bulk_{metric}{{fraud}}": 0
            for metric in ("backlog", "queue_waiting", "queue_delayed", "queue_leased")
        },
        "leases{churn}": 2,
        "leases{fraud}": 0,
        "leases_expired{}": 1,
        "dead_letters{}": 1,
        "dead_letters_dropped_total{}": 0,
        **{f"notices{{{state}}}": 0 for state in ("open", "waiting", "late")},
        **{f"listener_jobs{{{state}}}": 0 for state in ("open", "waiting")},
        "model_workers{churn,1}": 1,
        "model_workers{churn,2}": 2,
        "model_refused{churn,3}": 1,
    }


def test_every_metric_that_is_shown_is_declared(
    settings: Settings, server: redis.Redis, registry: CollectorRegistry
) -> None:
    publish_models(server, Keys(settings.key_prefix), "churn")
    text = generate_latest(registry).decode()
    shown = {family.name for family in text_string_to_metric_families(text)}
    assert shown == {metric.name.removesuffix("_total") for metric in METRICS}


def test_a_redis_that_does_not_answer_is_shown_as_down_without_its_password() -> None:
    registry = CollectorRegistry()
    unreachable = Settings(redis_url=f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    registry.register(QueueCollector(lambda: connect(unreachable)))
    text = generate_latest(registry).decode()
    assert "headrace_redis_up 0.0" in text
    assert "hunter2" not in text
