"""A reader forgets the outcomes it has read: they are gone from Redis, and other readers get a clear answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
from celery import Celery

from headrace import AsyncClient, BrokerUnavailable, Client, ResultTimeout
from headrace.wire.keys import Keys
from tests.support.answering_worker import double_age, publish_outcomes
from tests.support.lease_operations import failure

KEYS = Keys()
AGE = {"age": 41}


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url, check=False) as client:
        yield client


def answer(server: redis.Redis, *jobs: str) -> None:
    publish_outcomes(server, *(double_age(job, [AGE]) for job in jobs))


def stored(server: redis.Redis) -> set[str]:
    return {key.decode() for pattern in ("celery-task-meta-*", KEYS.job("*")) for key in server.keys(pattern)}


def keys_of(*jobs: str) -> set[str]:
    return {name for job in jobs for name in (KEYS.result(job), KEYS.job(job))}


def test_as_completed_forgets_each_outcome_once_its_reader_asks_for_the_next(client: Client, server: redis.Redis):
    jobs = client.submit_many("churn", [AGE] * 600)
    answer(server, *(job.id for job in jobs))
    read = []
    for job in client.as_completed(jobs, timeout=10, forget=True):
        read.append(job)
        assert KEYS.result(job.id) in stored(server) or len(read) % 250, "the job in hand is not forgotten"
    assert len(read) == 600
    assert stored(server) == set()
    assert {job.result().version for job in read} == {"3"}, "the handles keep their outcomes"


def test_a_reader_that_stops_in_between_has_forgotten_nothing_that_it_has_not_handled(
    client: Client, server: redis.Redis
):
    jobs = client.submit_many("churn", [AGE] * 300)
    answer(server, *(job.id for job in jobs))
    handled = []
    for job in client.as_completed(jobs, timeout=10, forget=True):
        if len(handled) == 260:
            break
        handled.append(job.id)
    forgotten = keys_of(*(job.id for job in jobs)) - stored(server)
    assert forgotten == keys_of(*handled[:250])


def test_the_asyncio_client_forgets_too(redis_url: str, server: redis.Redis):
    async def read() -> int:
        async with AsyncClient(redis_url, check=False) as client:
            jobs = await client.submit_many("churn", [AGE] * 3)
            answer(server, *(job.id for job in jobs))
            return len([job async for job in client.as_completed(jobs, timeout=10, forget=True)])

    assert asyncio.run(read()) == 3
    assert stored(server) == set()


def test_failures_and_jobs_without_an_outcome_are_not_forgotten(client: Client, server: redis.Redis):
    jobs = [client.submit("churn", AGE, id=name) for name in ("good", "bad", "waiting")]
    answer(server, "good")
    server.set(KEYS.result("bad"), failure("bad")[0])
    assert client.forget(jobs) == 1
    assert stored(server) == keys_of("bad") | {KEYS.job("waiting")}
    assert [client.job(name).status() for name in ("bad", "waiting")] == ["failure", "waiting"]
    assert client.forget(jobs) == client.forget([]) == 0


def test_another_reader_of_a_forgotten_job_gets_a_clear_answer(
    client: Client, server: redis.Redis, redis_url: str
):
    job = client.submit("churn", AGE, id="order-1")
    answer(server, "order-1")
    assert job.result(timeout=5).version == "3"
    client.forget([job])
    assert (job.status(), client.job("order-1").status()) == ("success", "unknown")
    with pytest.raises(ResultTimeout, match=r"Redis knows no such job: .* an outcome that was forgotten"):
        client.job("order-1").result(timeout=0.1)
    assert client.job("order-1").explain().status == "unknown"
    with Celery(broker=redis_url, backend=redis_url) as plain:
        assert plain.AsyncResult("order-1").state == "PENDING"


def test_the_id_of_a_forgotten_job_is_free(client: Client, server: redis.Redis):
    job = client.submit("churn", AGE, id="order-1")
    answer(server, "order-1")
    client.forget([job])
    assert client.submit("churn", {"age": 42}, id="order-1").status() == "waiting"


def test_a_user_who_may_not_delete_outcomes_is_told_so(server: redis.Redis, redis_url: str):
    rules = ["reset", "on", ">x", "&*", "+@all", "-del", "~*"]
    server.execute_command("ACL", "SETUSER", "limited", *rules)
    try:
        with Client(redis_url.replace("redis://", "redis://limited:x@"), check=False) as client:
            job = client.submit("churn", AGE)
            answer(server, job.id)
            with pytest.raises(BrokerUnavailable, match="does not permit this user"):
                client.forget([job])
            assert job.result(timeout=5).version == "3"
    finally:
        server.execute_command("ACL", "DELUSER", "limited")
