"""The backlog: the number by which workers are scaled, as the exporter shows it and KEDA reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest

from headrace import Client, Settings
from headrace.bulk import list_runs
from headrace.connection.connect import connect
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.store.store import Store
from headrace_worker.telemetry.queue_metrics import QueueCollector
from headrace_worker.telemetry.stored_models import StoredModels
from headrace_worker.telemetry.worker_classes import parse_classes
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support.connections import free_port
from tests.support.constant_models import add_constant
from tests.support.keda import ValueMissing, read_value

KEYS = Keys()
QUEUE = "predict.churn"
LIMITS = ClaimLimits(queue=QUEUE, jobs=3, bytes=10**6)

Exporter = Callable[..., "Page"]


class Page:
    """The metrics of an exporter, as KEDA reads them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def backlog(self, model: str) -> float:
        return read_value(self.text(), f'headrace_backlog{{model="{model}"}}')

    def of_class(self, name: str) -> float:
        return read_value(self.text(), f'headrace_class_backlog{{class="{name}"}}')

    def text(self) -> str:
        return generate_latest(self._registry).decode()


@pytest.fixture
def exporter(redis_url: str) -> Iterator[Exporter]:
    """A function that starts an exporter of the empty Redis."""
    clients = []

    def start(models: Collection[str] = (), classes: Sequence[str] = (), url: str = redis_url) -> Page:
        client = connect(Settings(redis_url=url))
        clients.append(client)
        registry = CollectorRegistry()
        registry.register(
            QueueCollector(
                lambda: client, list_models=lambda: models, classes=parse_classes(classes), list_runs=list_runs
            )
        )
        return Page(registry)

    yield start
    for client in clients:
        client.close()


def submit(redis_url: str, model: str, jobs: int, **options: int) -> None:
    """Submit jobs unchecked: no worker has published the model."""
    with Client(redis_url, check=False) as client:
        client.submit_many(model, [[1.0]] * jobs, **options)


def test_all_jobs_that_want_a_worker_count_and_delayed_jobs_do_not(
    exporter: Exporter, server: redis.Redis, redis_url: str
) -> None:
    for priority in (0, 3, 6, 9):
        submit(redis_url, "churn", 2, priority=priority)
    server.rpush(KEYS.isolated(QUEUE), "frame", "frame", "frame")
    for name in KEYS.retried(QUEUE):
        server.rpush(name, "frame")
    server.zadd(KEYS.delayed(QUEUE), {b"due": 1, b"due too": 2, b"next year": 4e12, b"some day": float("inf")})
    assert exporter(["churn"]).backlog("churn") == 8 + 3 + 4 + 2
    assert (
        len(Leases(server, KEYS).claim("w/1", [LIMITS], lease_ms=60_000).queued_messages) == 1
    )  # an isolated job
    assert exporter(["churn"]).backlog("churn") == 8 + 3 + 4 + 2


def test_a_claim_of_all_jobs_leaves_the_backlog_as_it_was(
    exporter: Exporter, server: redis.Redis, redis_url: str
) -> None:
    submit(redis_url, "churn", 200)
    claim = Leases(server, KEYS).claim("w/1", [ClaimLimits(queue=QUEUE, jobs=256, bytes=10**6)], lease_ms=60_000)
    assert (len(claim.queued_messages), server.llen(QUEUE)) == (200, 0)
    assert exporter(["churn"]).backlog("churn") == 200


def test_a_job_that_moves_while_it_is_counted_is_neither_missed_nor_counted_twice(
    exporter: Exporter, server: redis.Redis, redis_url: str
) -> None:
    submit(redis_url, "churn", 3)
    stop, moves, leases = threading.Event(), [], Leases(server, KEYS)

    def claim_and_return() -> None:
        while not stop.is_set():
            claim = leases.claim("w/1", [LIMITS], lease_ms=60_000)
            moves.append(len(claim.queued_messages))
            leases.requeue(claim.lease)

    mover, page = threading.Thread(target=claim_and_return), exporter(["churn"])
    mover.start()
    try:
        counts = [page.backlog("churn") for _ in range(200)]
    finally:
        stop.set()
        mover.join()
    assert set(counts) == {3}
    assert len(moves) > 20


def test_only_the_leased_jobs_of_a_paused_model_want_a_worker(
    exporter: Exporter, server: redis.Redis, redis_url: str
) -> None:
    submit(redis_url, "churn", 5)
    Leases(server, KEYS).claim("w/1", [LIMITS], lease_ms=60_000)
    server.hset(KEYS.paused, "churn", '{"by": "ann", "at_ms": 1}')
    page = exporter(["churn"], ["forest=churn"])
    assert (page.backlog("churn"), page.of_class("forest")) == (3, 3)
    server.delete(KEYS.paused)
    assert (page.backlog("churn"), page.of_class("forest")) == (5, 5)


def test_silent_models_have_a_backlog_of_zero_on_a_fresh_redis(exporter: Exporter) -> None:
    page = exporter(["churn"], ["forest=tumour,prices"])
    assert [page.backlog(model) for model in ("churn", "tumour", "prices")] == [0, 0, 0]
    assert page.of_class("forest") == 0
    with pytest.raises(ValueMissing):
        page.backlog("fraud")
    with pytest.raises(ValueMissing):
        page.of_class("other")


def test_the_models_of_the_store_are_shown_as_they_are_added(exporter: Exporter, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    stored = StoredModels(store.models)
    stored.read()
    assert stored.names() == frozenset()
    add_constant(store, tmp_path, "churn", 1.0)
    stored.read()
    assert exporter(stored.names()).backlog("churn") == 0


def test_a_store_that_cannot_be_listed_keeps_its_names_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replies: Iterator[list[str] | OSError] = iter([["churn"], OSError("no disk"), OSError("no disk"), ["a", "b"]])

    def list_models() -> list[str]:
        reply = next(replies)
        if isinstance(reply, OSError):
            raise reply
        return reply

    stored = StoredModels(list_models)
    for expected in ({"churn"}, {"churn"}, {"churn"}, {"a", "b"}):
        stored.read()
        assert stored.names() == expected
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["no disk"]


def test_a_class_sums_its_models_and_a_class_without_models_all(
    exporter: Exporter, server: redis.Redis, redis_url: str
) -> None:
    for model, jobs in (("tumour", 3), ("prices", 4), ("churn", 10)):
        submit(redis_url, model, jobs)
    page = exporter(["churn"], ["forest=tumour,prices,tumour", "default="])
    assert (page.of_class("forest"), page.of_class("default")) == (7, 17)
    assert page.backlog("tumour") == 3


def test_a_model_of_a_class_that_nobody_has_is_logged_once(
    exporter: Exporter, server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    page = exporter(["tumour"], ["forest=tumor"])
    assert [page.of_class("forest") for _ in range(3)] == [0, 0, 0]
    (record,) = caplog.records
    assert record.getMessage().endswith("it counts its queue; did you mean 'tumour'?")


def test_a_redis_that_is_away_shows_no_backlog_and_not_zero(exporter: Exporter) -> None:
    with EmbeddedRedis() as own:
        page = exporter(["churn"], ["forest=churn"], url=own.url)
        submit(own.url, "churn", 2)
        assert (page.backlog("churn"), page.of_class("forest")) == (2, 2)
    for read in (lambda: page.backlog("churn"), lambda: page.of_class("forest")):
        with pytest.raises(ValueMissing):
            read()
    assert "headrace_redis_up 0.0" in page.text()
    away = exporter(["churn"], ["forest=churn"], url=f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(ValueMissing):
        away.of_class("forest")


def test_a_list_of_another_type_hides_no_other_list(
    exporter: Exporter, server: redis.Redis, redis_url: str
) -> None:
    for model in ("churn", "fraud"):
        submit(redis_url, model, 2)
    for number, name in enumerate(
        (KEYS.isolated(QUEUE), KEYS.delayed(QUEUE), f"{QUEUE}:5", KEYS.retried(QUEUE)[2])
    ):
        server.set(name, number)
    page = exporter(["churn", "fraud"])
    assert (page.backlog("churn"), page.backlog("fraud")) == (2, 2)


def test_damage_elsewhere_hides_no_backlog(exporter: Exporter, server: redis.Redis, redis_url: str) -> None:
    submit(redis_url, "churn", 2)
    for name in (KEYS.dead_times, KEYS.oldest, KEYS.paused, KEYS.loaded("churn"), KEYS.aliases("churn")):
        server.set(name, "not ours")
    server.lpush(KEYS.dead_dropped, "not ours")
    assert exporter(["churn"]).backlog("churn") == 2


@pytest.mark.parametrize("name", [KEYS.models, KEYS.leases])
def test_without_the_models_or_the_leases_no_backlog_is_shown(
    exporter: Exporter, server: redis.Redis, redis_url: str, name: str
) -> None:
    submit(redis_url, "churn", 2)
    server.set(name, "not ours")
    with pytest.raises(ValueMissing):
        exporter(["churn"], ["default="]).of_class("default")


def test_a_scrape_measures_many_queues_in_steps_and_each_model_costs_the_same(
    exporter: Exporter, server: redis.Redis
) -> None:
    def count_calls(models: int) -> dict[str, int]:
        page = exporter([f"m{number}" for number in range(models)])
        page.text()  # loads the script
        server.config_resetstat()
        page.text()
        calls = {
            name.removeprefix("cmdstat_"): stats["calls"] for name, stats in server.info("commandstats").items()
        }
        return {
            "scripts": sum(calls.get(name, 0) for name in ("fcall", "evalsha", "eval")),
            **{name: calls[name] for name in ("smembers", "zrange", "zcard", "llen", "hgetall")},
        }

    few, many = count_calls(1), count_calls(450)
    assert few == {"scripts": 1, "smembers": 1, "zrange": 2, "zcard": 7, "llen": 48, "hgetall": 4}
    assert many == {
        "scripts": 5,
        "smembers": 1,
        "zrange": 6,
        "zcard": 905,
        "llen": 450 * 48,
        "hgetall": 450 * 2 + 2,
    }


def test_chunks_of_tables_are_a_backlog_of_their_own_and_count_for_their_class(
    exporter: Exporter, server: redis.Redis, redis_url: str
) -> None:
    submit(redis_url, "churn", 5)
    server.rpush(KEYS.lists("bulk.churn")[3], *["frame"] * 7)
    server.rpush(KEYS.isolated("bulk.churn"), "frame")
    server.zadd(KEYS.delayed("bulk.churn"), {b"due": 1, b"next year": 4e12})
    Leases(server, KEYS).claim("w/1", [ClaimLimits(queue="bulk.churn", jobs=1, bytes=10**6)], lease_ms=60_000)
    page = exporter(["churn", "fraud"], ["forest=churn"])
    assert (page.backlog("churn"), page.of_class("forest")) == (5, 5 + 9)
    assert read_value(page.text(), 'headrace_bulk_backlog{model="churn"}') == 9
    assert read_value(page.text(), 'headrace_bulk_backlog{model="fraud"}') == 0  # KEDA fails on a missing series
