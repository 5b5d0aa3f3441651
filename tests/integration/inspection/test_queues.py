"""Tests of the depths of queues: waiting, isolated, delayed and leased jobs."""

from __future__ import annotations

import pytest
import redis

from headrace import AsyncClient, Client
from headrace.catalog.published import publish_contract
from headrace.wire.keys import Keys
from headrace_worker.transport.claims import ClaimLimits
from headrace_worker.transport.leases import Leases
from tests.support.answering_worker import CHURN


@pytest.fixture
def client(redis_url: str, server: redis.Redis):
    publish_contract(server, Keys(), CHURN)
    with Client(redis_url) as client:
        yield client


def test_isolated_jobs_count_as_waiting_and_delayed_jobs_do_not(client: Client, server: redis.Redis):
    keys = Keys()
    client.submit("churn", {"age": 1}, priority=9)
    server.rpush(keys.isolated("predict.churn"), "frame", "frame")
    server.zadd(keys.delayed("predict.churn"), {"later": 2e12})
    (depth,) = client.queues()
    assert depth.by_priority == {0: 0, 3: 0, 6: 0, 9: 1}
    assert (depth.isolated, depth.waiting, depth.delayed, depth.leased) == (2, 3, 1, 0)


def test_retried_jobs_count_under_their_priority(client: Client, server: redis.Redis):
    keys = Keys()
    client.submit("churn", {"age": 1})
    server.rpush(keys.retried("predict.churn")[0], "frame", "frame")
    server.rpush(keys.retried("predict.churn")[3], "frame")
    (depth,) = client.queues()
    assert depth.by_priority == {0: 3, 3: 0, 6: 0, 9: 1}
    assert (depth.isolated, depth.waiting) == (0, 4)


def test_jobs_in_lists_of_clients_with_other_priority_steps_are_counted(client: Client, server: redis.Redis):
    for name in ("predict.churn:1", "predict.churn\x06\x164", "predict.churn:9"):
        server.lpush(name, "message", "message")
    server.lpush("predict.churn", "message")
    (depth,) = client.queues()
    assert depth.by_priority == {0: 3, 3: 2, 6: 0, 9: 2}


def test_claimed_jobs_are_counted_by_queue(client: Client, server: redis.Redis):
    for priority in (0, 0, 3):
        client.submit("churn", {"age": 1}, priority=priority)
    limits = ClaimLimits(queue="predict.churn", jobs=8, bytes=10**6)
    Leases(server, Keys()).claim("owner-1", [limits], lease_ms=60_000)
    (depth,) = client.queues()
    assert (depth.waiting, depth.leased) == (0, 3)


def test_a_malformed_lease_counts_no_jobs(client: Client, server: redis.Redis):
    server.zadd(Keys().leases, {b"\xff": 1, "a#b": 2, "a#1,x#predict.churn": 3, "a##predict.churn": 4})
    (depth,) = client.queues()
    assert depth.leased == 0


async def test_the_asyncio_client_returns_the_same_depths(client: Client, server: redis.Redis, redis_url: str):
    server.rpush(Keys().isolated("predict.churn"), "frame")
    async with AsyncClient(redis_url) as other:
        assert await other.queues() == client.queues()


def test_the_queue_of_bulk_runs_is_shown_while_it_holds_jobs(client: Client, server: redis.Redis):
    keys = Keys()
    client.submit("churn", {"age": 1})
    server.rpush(keys.lists("bulk.churn")[3], "frame", "frame", "frame")
    Leases(server, keys).claim("w/1", [ClaimLimits(queue="bulk.churn", jobs=1, bytes=10**6)], lease_ms=60_000)
    client.pause("churn")
    jobs, chunks = client.queues()
    assert (jobs.model, jobs.queue, jobs.waiting, jobs.leased, jobs.is_bulk) == (
        "churn",
        "predict.churn",
        1,
        0,
        False,
    )
    assert (chunks.model, chunks.queue, chunks.waiting, chunks.leased) == ("churn", "bulk.churn", 2, 1)
    assert (chunks.is_bulk, chunks.paused is not None, chunks.backlog) == (True, True, 1)
    server.delete(*keys.lists("bulk.churn"), keys.leases)
    assert [depth.queue for depth in client.queues()] == ["predict.churn"]
