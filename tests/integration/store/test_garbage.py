"""Old versions are removed, and versions in use are kept. With a real Redis."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from headrace import Client
from headrace.catalog.aliases import Alias, move_alias
from headrace.catalog.contract import Contract, Output, Text
from headrace.catalog.published import publish_contract
from headrace.connection.commands import execute
from headrace.errors import BrokerUnavailable, ModelError
from headrace.wire.attempts import Attempt, encode_queued_message
from headrace.wire.keys import Keys
from headrace.wire.message import Job, encode_message
from headrace_worker.settings import WorkerSettings
from headrace_worker.store import references
from headrace_worker.store.garbage import CollectionItem, GarbageCollector, select_old
from headrace_worker.store.store import Store
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support.stored_dead_letters import make_letter, store_letter
from tests.support.stored_versions import DATA, make_manifest

KEYS = Keys("shop:")
NOW = datetime.now(UTC)


def contract(version: str) -> Contract:
    return Contract(model="churn", version=version, input=Text(), methods={"predict": Output(shape=())})


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(
        redis_url=redis_url, key_prefix="shop:", models=str(tmp_path / "models"), command_timeout=1, contract_ttl=7
    )


@pytest.fixture
def store(settings: WorkerSettings) -> Store:
    """Eight versions of one model."""
    store = Store(settings.models)
    for _ in range(8):
        store.add(make_manifest(), DATA)
    return store


@pytest.fixture
def collector(store: Store, settings: WorkerSettings) -> Iterator[GarbageCollector]:
    with Client(settings=settings) as client:
        yield GarbageCollector(store, settings, lambda model: client.dead_letters.list(model=model), keep=2)


def reasons_to_keep(items: list[CollectionItem]) -> dict[str, str]:
    return {item.version: item.reason for item in items if not item.remove}


def message(version: str | None, name: str = "a") -> bytes:
    return encode_message(Job(id=name, model="churn", instances=["x"], version=version))


def point(server: redis.Redis, alias: str, version: str, former: str | None = None) -> None:
    before, after = Alias(version=former) if former else None, Alias(version=version)
    assert execute(server, move_alias(KEYS, "churn", alias, before, after, by="anna", reason="")) == 1


def test_the_newest_versions_are_kept_and_the_others_removed(collector: GarbageCollector, store: Store) -> None:
    items = collector.find_candidates(["churn"], NOW)
    assert [item.version for item in items] == ["1", "2", "3", "4", "5", "6"]
    assert store.versions("churn")[0] == "1"
    collected = collector.collect(items)
    assert all(item.remove and item.size > len(DATA) for item in collected)
    assert store.versions("churn") == ["7", "8"]
    assert store.add(make_manifest(), DATA).version == "9"


@pytest.mark.parametrize(("keep", "old"), [(1, ["1", "2"]), (3, []), (9, []), (0, ["1", "2"])])
def test_the_newest_versions_and_at_least_one_are_kept(keep: int, old: list[str]) -> None:
    assert select_old(["1", "2", "10"], keep) == old


def test_versions_of_aliases_and_of_their_rollbacks_are_kept(
    collector: GarbageCollector, server: redis.Redis
) -> None:
    point(server, "production", "1")
    point(server, "production", "2", former="1")
    point(server, "canary", "4")
    assert reasons_to_keep(collector.find_candidates(["churn"], NOW)) == {
        "1": "the rollback target of production",
        "2": "the alias production",
        "4": "the alias canary",
    }


def test_the_version_that_serves_is_kept(collector: GarbageCollector, server: redis.Redis) -> None:
    publish_contract(server, KEYS, contract("3"))  # all newer ones may have been refused
    assert reasons_to_keep(collector.find_candidates(["churn"], NOW)) == {"3": "the newest published version"}


def test_an_alias_that_cannot_be_read_stops_the_collection(
    collector: GarbageCollector, server: redis.Redis
) -> None:
    server.hset(KEYS.aliases("churn"), "production", '{"of a newer": "Headrace"}')
    with pytest.raises(ModelError, match="an alias of churn cannot be read"):
        collector.find_candidates(["churn"], NOW)


def put_waiting(server: redis.Redis) -> None:
    server.lpush(KEYS.lists("predict.churn")[3], message(None, "b"), message("3"))


def put_isolated(server: redis.Redis) -> None:
    attempt = Attempt(cause="crash", owner="host", at_ms=1, claim_size=1)
    server.lpush(KEYS.isolated("predict.churn"), encode_queued_message([attempt], message("3")))


def put_delayed(server: redis.Redis) -> None:
    server.zadd(KEYS.delayed("predict.churn"), {message("3"): 9e12})


def put_leased(server: redis.Redis) -> None:
    server.lpush(KEYS.lists("predict.churn")[0], message("3"))
    leases = Leases(server, KEYS)
    leases.claim("host/1/a", [ClaimLimits(queue="predict.churn", jobs=10, bytes=10_000)], lease_ms=60_000)
    assert not server.llen(KEYS.lists("predict.churn")[0])


def put_dead(server: redis.Redis) -> None:
    store_letter(server, make_letter("a", version="3"), keys=KEYS)


@pytest.mark.parametrize("put_job", [put_waiting, put_isolated, put_delayed, put_leased, put_dead])
def test_a_version_that_a_job_names_is_kept_in_each_state_of_the_job(
    put_job: Callable[[redis.Redis], None], collector: GarbageCollector, server: redis.Redis, store: Store
) -> None:
    put_job(server)
    items = collector.find_candidates(["churn"], NOW)
    assert reasons_to_keep(items) == {"3": "the dead letter a" if put_job is put_dead else "a job"}
    collector.collect(items)
    assert store.versions("churn") == ["3", "7", "8"]


def test_jobs_of_other_models_and_malformed_messages_keep_nothing(
    collector: GarbageCollector, server: redis.Redis
) -> None:
    server.lpush(KEYS.lists("predict.churns")[0], message("1"))
    server.lpush(
        KEYS.lists("predict.churn")[0], b"no job", b"\x01", encode_message(Job(id="a", model="x", instances=[]))
    )
    server.lpush("predict.churn", message("2"))  # of an installation with another key prefix
    assert reasons_to_keep(collector.find_candidates(["churn"], NOW)) == {}


def test_thousands_of_jobs_of_all_sizes_are_read(server: redis.Redis) -> None:
    name = KEYS.lists("predict.churn")[0]
    large = encode_message(Job(id="large", model="churn", instances=["x" * 2_000_000], version="2"))
    server.rpush(name, *(message(None, str(number)) for number in range(3000)), large, message("5"))
    assert references.find_versions_in_use(server, KEYS, "churn") == {"2": "a job", "5": "a job"}


def test_a_job_that_names_a_version_during_the_collection_keeps_it(
    collector: GarbageCollector, server: redis.Redis, store: Store, settings: WorkerSettings
) -> None:
    for version in ("1", "2", "8"):
        publish_contract(server, KEYS, contract(version))
    waits: list[float] = []

    def submit_during_wait(seconds: float) -> None:
        waits.append(seconds)
        assert not server.hexists(KEYS.contracts("churn"), "1")
        server.lpush(KEYS.lists("predict.churn")[0], message("1"))  # from a producer that still has the contract

    collected = collector.collect(collector.find_candidates(["churn"], NOW), submit_during_wait)
    assert waits == [settings.contract_ttl]
    assert reasons_to_keep(collected) == {"1": "a job"}
    assert store.versions("churn") == ["1", "7", "8"]
    assert set(server.hkeys(KEYS.contracts("churn"))) == {b"latest", b"1", b"8"}
    with Client(settings=settings) as client:
        assert client.submit("churn", "x", version="1").id


def test_an_unfinished_version_is_removed_after_a_day(collector: GarbageCollector, store: Store) -> None:
    yesterday, today = store.path / "churn/.adding-old", store.path / "churn/.adding-new"
    for path in (yesterday, today):
        path.mkdir()
        (path / "artifact.skops").write_bytes(DATA)
    long_ago = time.time() - timedelta(days=1, hours=1).total_seconds()
    os.utime(yesterday, (long_ago, long_ago))
    items = collector.find_candidates(["churn"], datetime.now(UTC))
    assert [(item.version, item.reason) for item in items if item.reason] == [(".adding-old", "never finished")]
    collector.collect(items)
    assert not yesterday.exists()
    assert today.exists()


def test_nothing_is_removed_while_redis_is_unavailable(store: Store, tmp_path: Path) -> None:
    unavailable = WorkerSettings(
        redis_url=f"unix://{tmp_path}/none.sock", command_timeout=0.2, connect_timeout=0.2
    )
    with pytest.raises(BrokerUnavailable):
        GarbageCollector(store, unavailable, lambda _model: (), keep=1).find_candidates(["churn"], NOW)
    assert len(store.versions("churn")) == 8
