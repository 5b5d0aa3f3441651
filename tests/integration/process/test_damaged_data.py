"""Damaged data of one model in Redis neither ends a loop of a worker nor stops the other models."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from headrace import Client
from headrace.catalog import aliases
from headrace.catalog.aliases import Alias
from headrace.connection.commands import execute
from headrace.results.letter_scripts import DeadLetterLimits
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from headrace_worker.local.stack import Child, start_worker
from headrace_worker.store.store import Store
from headrace_worker.transport.lease_keeper import LeaseKeeper
from tests.support.constant_models import add_constant
from tests.support.lease_operations import QUEUE
from tests.support.script_cases import hold
from tests.support.waiting import wait_until

KEYS = Keys()


class Site(NamedTuple):
    url: str
    store: Store
    worker: Child
    port: int


def read(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    store = Store(tmp_path / "models")
    for name in ("damaged", "sound"):
        add_constant(store, tmp_path, name, 1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with EmbeddedRedis("--appendfsync", "no") as server:
        with redis.Redis.from_url(server.url) as db:
            spoil(db)
        worker = start_worker(server.url, store.path, tmp_path, HEADRACE_METRICS_PORT=str(port))
        try:
            yield Site(server.url, store, worker, port)
        finally:
            worker.stop()


def spoil(db: redis.Redis) -> None:
    """Store damaged data under every key that a worker follows of the model `damaged`."""
    db.hset(KEYS.aliases("damaged"), mapping={"production": b"\xff", b"\xff": b"{", "canary": b"[]"})
    db.lpush(KEYS.alias_history("damaged"), b"\xff")
    db.set(KEYS.loaded("damaged"), "no hash")
    db.set(KEYS.contracts("damaged"), "no hash")
    db.hset(KEYS.refused("damaged"), "1", b"\xff")
    db.sadd(KEYS.models, b"\xff", "damaged")
    db.zadd(KEYS.leases, {b"\xff": 1, b"##": 1})


def test_a_worker_starts_serves_and_follows_the_other_models(site: Site, tmp_path: Path) -> None:
    with Client(site.url, check=False) as client, redis.Redis.from_url(site.url) as db:
        for model in ("sound", "damaged"):
            assert client.predict(model, [7.0], timeout=30).prediction == 1.0
        db.set(KEYS.delayed("predict.damaged"), "no sorted set")
        add_constant(site.store, tmp_path, "sound", 2.0)
        add_constant(site.store, tmp_path, "later", 3.0)
        assert client.predict("later", [7.0], timeout=30).prediction == 3.0
        wait_until(lambda: client.predict("sound", [7.0], timeout=30).prediction == 2.0)
        move = aliases.move_alias(KEYS, "sound", "production", None, Alias(version="1"), by="me", reason="")
        execute(db, move)
        wait_until(lambda: client.predict("sound", [7.0], timeout=30).prediction == 1.0)
        wait_until(lambda: db.hlen(KEYS.loaded("later")) == 1)
    assert "all is well" in read(site.port, "/ready")
    text = read(site.port, "/metrics")
    for loop in ("leases", "models"):
        assert f'headrace_loop_up{{loop="{loop}"}} 1.0' in text
        assert f'headrace_loop_age_seconds{{loop="{loop}"}} ' in text
    log = site.worker.log.read_text()
    for name in (
        "the contract of damaged",
        "the status of workers of damaged",
        "the delayed jobs of predict.damaged",
    ):
        assert log.count(name) == 1, log  # named once, not every second


def test_an_expired_lease_that_cannot_be_moved_stops_no_other(redis_url: str, server: redis.Redis) -> None:
    rounds: list[BaseException | None] = []
    hold(server, b"stuck", name="gone/1", expires_ms=1)
    server.delete(KEYS.lease("gone/1"))
    server.set(KEYS.lease("gone/1"), "no list")
    hold(server, b"sound", name="gone/2", expires_ms=2)
    server.zadd(KEYS.delayed("predict.other"), {b"1due": 1})
    server.set(KEYS.delayed(QUEUE), "no sorted set")
    keeper = LeaseKeeper(lambda: redis.Redis.from_url(redis_url), KEYS, lease_seconds=1, limits=DeadLetterLimits())
    keeper.on_round_ended = rounds.append
    try:
        keeper.watch([QUEUE, "predict.other"])
        wait_until(lambda: server.llen(KEYS.isolated(QUEUE)) == 1)
        wait_until(lambda: server.zcard(KEYS.delayed("predict.other")) == 0)
        wait_until(lambda: len(rounds) > 3)
        assert server.zrange(KEYS.leases, 0, -1) == [b"gone/1#1,1#predict.churn"]
        assert set(rounds) == {None}
    finally:
        keeper.close()
