"""Duties of the keeper of the queues for all workers, and their cost while there is nothing to do."""

from __future__ import annotations

import logging

import pytest
import redis

from headrace.catalog import changes
from headrace.catalog.aliases import set_arriving
from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace_worker.process.keeper_duties import KeeperDuties
from tests.support.fake_clock import FakeClock

KEYS = Keys("duties-test:")
MODELS = [f"m{number}" for number in range(8)]
QUEUES = [f"predict.{model}" for model in MODELS]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def duties(clock: FakeClock) -> KeeperDuties:
    return KeeperDuties(KEYS, ttl=60, models=lambda: ["m0"], clock=clock)


def count(server: redis.Redis) -> int:
    return int(server.get(KEYS.changes) or 0)


def test_a_change_that_nobody_counted_is_counted_within_seconds(
    server: redis.Redis, duties: KeeperDuties, clock: FakeClock
) -> None:
    clock.advance(10)
    duties.run(server, QUEUES)
    first = count(server)
    assert first == 1, "what changed before this worker kept the queues is not known"
    for change in (
        lambda: execute(server, set_arriving(KEYS, "m3", "2")),
        lambda: server.hset(KEYS.aliases("m0"), "production", b'{"version":"3"}'),
        lambda: server.hset(KEYS.paused, "m1", b"{}"),
        lambda: (server.delete(KEYS.aliases("m3")), server.set(KEYS.aliases("m3"), "another type")),
    ):
        change()
        duties.run(server, QUEUES)
        assert count(server) == first, "compared too often"
        clock.advance(6)
        duties.run(server, QUEUES)
        assert count(server) == first + 1
        first += 1
        clock.advance(6)
        duties.run(server, QUEUES)
        assert count(server) == first


def test_a_duty_that_redis_refuses_is_logged_once_and_stops_no_other(
    server: redis.Redis, duties: KeeperDuties, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    server.set(KEYS.cancel_requests, "another type")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.advance(10)
            duties.run(server, QUEUES)
    assert server.hlen(KEYS.oldest) == 8
    assert len(caplog.records) == 1


def test_cancellations_are_carried_out_while_a_report_is_refused(
    server: redis.Redis, duties: KeeperDuties, clock: FakeClock
) -> None:
    server.set(KEYS.oldest, "another type")
    server.zadd(KEYS.cancel_requests, {"a-job": 1})
    clock.advance(10)
    duties.run(server, QUEUES)
    assert not server.exists(KEYS.cancel_requests)
    assert b"REVOKED" in (server.get(KEYS.result("a-job")) or b"")


def test_an_idle_store_costs_a_few_commands_for_any_number_of_models(
    server: redis.Redis, duties: KeeperDuties, clock: FakeClock
) -> None:
    clock.advance(10)
    duties.run(server, QUEUES)  # everything is due at first
    before = server.info("stats")["total_commands_processed"]
    clock.advance(1)
    duties.run(server, QUEUES)
    assert server.info("stats")["total_commands_processed"] - before <= 3  # one is INFO


def test_a_user_who_may_not_count_changes_makes_them_all_the_same(server: redis.Redis, redis_url: str) -> None:
    server.execute_command("ACL SETUSER uncounting on >pw ~* &* +@all -incrby")
    try:
        with redis.Redis.from_url(redis_url.replace("redis://", "redis://uncounting:pw@")) as client:
            execute(client, set_arriving(KEYS, "m0", "2"))
            changes.count_change_with(client, KEYS)
        assert server.hget(KEYS.aliases("m0"), "arriving")
        assert not server.exists(KEYS.changes)
    finally:
        server.execute_command("ACL DELUSER uncounting")


@pytest.fixture(autouse=True)
def _clean(server: redis.Redis) -> None:
    for key in server.scan_iter("duties-test:*"):
        server.delete(key)
