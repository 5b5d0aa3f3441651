"""Tests of dead letters on each supported server: with and without free memory, and in cluster mode."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from headrace import Client
from headrace.dead_letters.bulk import BulkResult
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.connections import free_port
from tests.support.redis_servers import SERVERS, find_server
from tests.support.stored_dead_letters import ago_ms, crashed_attempt, make_letter, store_letter, store_malformed


@pytest.fixture(scope="module", params=SERVERS)
def embedded_redis(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no", server=find_server(request.param)) as server:
        yield server


@pytest.fixture
def db(embedded_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(embedded_redis.url) as db:
        db.flushall()
        yield db


def check_operations(url: str, db: redis.Redis, keys: Keys) -> None:
    """Run every operation on dead letters, and check its result."""
    store_letter(db, make_letter("a"), keys=keys, died_ms=ago_ms(60))
    store_letter(db, make_letter("b", attempts=(crashed_attempt(),)), keys=keys)
    store_letter(db, make_letter("c"), keys=keys)
    with Client(settings=Settings(redis_url=url, key_prefix=keys.prefix)) as client:
        dead = client.dead_letters
        assert [letter.id for letter in dead.list()] == ["a", "b", "c"]
        assert [letter.id for letter in dead.list(older_than=30)] == ["a"]
        assert [len(letter.payload) > 0 for letter in dead.export()] == [True] * 3
        assert dead.replay(ids=["a", "b", "x"]) == BulkResult(done=2, missing=("x",))
        assert (db.llen(keys.retried("predict.churn")[0]), db.llen(keys.isolated("predict.churn"))) == (1, 1)
        assert client.job("a").status() == "waiting"
        assert dead.purge(every=True) == BulkResult(done=1)
        assert not db.exists(keys.dead, keys.dead_messages, keys.dead_times)


@pytest.mark.parametrize("prefix", ["", "{apart}:"])
def test_letters_are_listed_replayed_and_purged(embedded_redis: EmbeddedRedis, db: redis.Redis, prefix: str):
    check_operations(embedded_redis.url, db, Keys(prefix))


def test_a_full_redis_permits_replays_and_purges(embedded_redis: EmbeddedRedis, db: redis.Redis):
    for name in ("a", "b"):
        store_letter(db, make_letter(name))
    store_malformed(db, b"garbage")
    db.config_set("maxmemory", 1)
    try:
        with Client(embedded_redis.url) as client:
            assert client.dead_letters.replay(ids=["a"]).done == 1
            assert client.dead_letters.purge(every=True).done == 2
            assert client.job("a").status() == "waiting"
    finally:
        db.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    "key", [Keys().dead, Keys().dead_messages, Keys().retried("predict.churn")[0], Keys().job("a")]
)
def test_a_key_of_another_type_loses_no_letter(embedded_redis: EmbeddedRedis, db: redis.Redis, key: str):
    store_letter(db, make_letter("a"))
    stored = db.dump(key) if db.exists(key) else None
    db.delete(key)
    db.zadd(key, {"x": 1})
    with Client(embedded_redis.url) as client:
        try:
            client.dead_letters.replay(ids=["a"])
        except ConnectionError:
            db.delete(key)
            if stored is not None:
                db.restore(key, 0, stored)
            assert client.dead_letters.replay(ids=["a"]).done == 1
        assert db.lrange(Keys().retried("predict.churn")[0], 0, -1) != []
        assert db.zcard(Keys().dead_times) == 0


def test_every_key_is_declared_so_that_a_cluster_runs_the_scripts():
    # The cluster bus listens on a port 10,000 higher.
    port = next(port for port in iter(free_port, None) if port < 55_000)
    with (
        EmbeddedRedis("--cluster-enabled", "yes", server=find_server("falkordb"), port=port) as cluster,
        redis.Redis.from_url(cluster.url) as node,
    ):
        node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + 10
        while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        check_operations(cluster.url, node, Keys("{headrace}:"))
