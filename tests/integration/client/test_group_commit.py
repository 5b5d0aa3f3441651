"""Submits of concurrent callers go to Redis together, and each caller has its own answer."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from headrace import AsyncClient, AsyncJobHandle
from headrace.catalog.published import publish_contract
from headrace.errors import BrokerUnavailable, InvalidInput, JobConflict, QueueFull
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.answering_worker import CHURN, AnsweringWorker
from tests.support.functions import count_script_calls
from tests.support.silent_redis import stopped
from tests.support.stalling_proxy import stalling_proxy
from tests.support.submitting import queued_ids, queued_messages
from tests.support.waiting import wait_until_async

AGE = {"age": 41}


@pytest.fixture
async def client(redis_url: str, server: redis.Redis) -> AsyncIterator[AsyncClient]:
    """A client that has read the contract, and knows how scripts are called."""
    publish_contract(server, Keys(), CHURN)
    async with AsyncClient(redis_url) as client:
        await (await client.submit("churn", AGE)).cancel()
        server.delete("predict.churn")
        server.config_resetstat()
        yield client


def ages(count: int) -> list[dict[str, int]]:
    return [{"age": age} for age in range(count)]


async def submit_all(client: AsyncClient, count: int, **options: Any) -> list[AsyncJobHandle | BaseException]:
    """Submit jobs, each by a task of its own; return their handles or errors in the order of the tasks."""
    return await asyncio.gather(
        *(client.submit("churn", age, **options) for age in ages(count)), return_exceptions=True
    )


@pytest.mark.parametrize(("jobs", "calls"), [(1, 1), (250, 1), (251, 2), (600, 3)])
async def test_concurrent_submits_share_calls_of_the_script(
    client: AsyncClient, server: redis.Redis, jobs: int, calls: int
):
    handles = await submit_all(client, jobs)
    assert count_script_calls(server) == calls
    assert queued_ids(server) == [handle.id for handle in handles if isinstance(handle, AsyncJobHandle)]
    instances = [json.loads(base64.b64decode(message["body"]))[0][1] for message in queued_messages(server)]
    assert instances == [[age] for age in ages(jobs)]


async def test_a_call_holds_no_more_than_a_mebibyte(redis_url: str, server: redis.Redis):
    async with AsyncClient(redis_url, check=False) as client:
        await client.submit("churn", "warm")
        server.config_resetstat()
        await asyncio.gather(*(client.submit("churn", "x" * 300_000) for _ in range(8)))
    # Base64 makes 400,000 bytes of each.
    assert count_script_calls(server) == 4


async def test_what_arrives_during_a_call_goes_with_the_next(client: AsyncClient, server: redis.Redis):
    server.client_pause(150)
    tasks = []
    for _ in range(20):
        tasks.append(asyncio.create_task(client.submit("churn", AGE)))
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    # One alone, one with what came meanwhile, and one if the pause was longer than a call waits for another.
    assert 2 <= count_script_calls(server) <= 3


async def test_a_caller_alone_waits_for_nobody(client: AsyncClient, server: redis.Redis):
    jobs = [(await client.submit("churn", age)).id for age in ages(10)]
    assert count_script_calls(server) == 10
    assert queued_ids(server) == jobs


async def test_each_queue_and_priority_has_calls_of_its_own(client: AsyncClient, server: redis.Redis):
    await asyncio.gather(
        *(client.submit("churn", AGE, priority=priority) for priority in (0, 9) for _ in range(5)),
        *(client.submit("churn", AGE, delay=60) for _ in range(5)),
    )
    assert count_script_calls(server) == 3
    (urgent, delayed), late = (5, 5), server.llen("predict.churn\x06\x169")
    assert (server.llen("predict.churn"), late) == (urgent + delayed, 5)


async def test_options_of_one_caller_are_not_those_of_another(client: AsyncClient, server: redis.Redis):
    methods = [None, "predict", None]
    notes = [{"order": "1"}, None, {"order": "3"}]
    await asyncio.gather(
        *(
            client.submit("churn", AGE, method=method, metadata=metadata, expires=expires)
            for method, metadata, expires in zip(methods, notes, (None, 30, 60), strict=True)
        )
    )
    assert count_script_calls(server) == 1
    options = [json.loads(base64.b64decode(message["body"]))[1] for message in queued_messages(server)]
    assert [option.get("method") for option in options] == methods
    assert [option.get("metadata") for option in options] == notes
    assert [message["headers"]["expires"] is None for message in queued_messages(server)] == [True, False, False]


async def test_a_full_queue_refuses_only_those_who_came_last(redis_url: str):
    async with AsyncClient(settings=Settings(redis_url=redis_url, queue_limit=4), check=False) as client:
        await submit_all(client, 1)
        results = await submit_all(client, 6)
    assert [type(result) for result in results] == [AsyncJobHandle] * 3 + [QueueFull] * 3
    assert all(result.accepted == () for result in results if isinstance(result, QueueFull))


async def test_a_conflict_is_told_to_one_caller(client: AsyncClient, server: redis.Redis):
    await client.submit("churn", AGE, id="taken")
    results = await asyncio.gather(
        client.submit("churn", {"age": 1}, id="before"),
        client.submit("churn", {"age": 2}, id="taken"),
        client.submit("churn", AGE, id="taken"),
        client.submit("churn", {"age": 3}, id="behind"),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [AsyncJobHandle, JobConflict, AsyncJobHandle, AsyncJobHandle]
    assert queued_ids(server) == ["taken", "before", "behind"]


async def test_bad_input_is_told_to_one_caller(client: AsyncClient, server: redis.Redis):
    results = await asyncio.gather(
        *(client.submit("churn", {"age": age}) for age in (1, "x", 3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [AsyncJobHandle, InvalidInput, AsyncJobHandle]
    assert (server.info("commandstats")["cmdstat_lpush"]["calls"], len(queued_ids(server))) == (1, 2)


async def test_a_foreign_key_in_place_of_a_record_stops_one_caller(client: AsyncClient, server: redis.Redis):
    server.lpush(Keys().job("b"), "not a record")
    results = await asyncio.gather(
        *(client.submit("churn", AGE, id=job) for job in ("a", "b", "c")), return_exceptions=True
    )
    assert [type(result) for result in results] == [AsyncJobHandle, BrokerUnavailable, AsyncJobHandle]
    assert sorted(queued_ids(server)) == ["a", "c"]


async def test_a_cancelled_caller_leaves_and_the_call_goes_on(
    client: AsyncClient, server: redis.Redis, redis_url: str
):
    with stopped(redis_url):
        first = asyncio.create_task(client.submit("churn", AGE, id="first"))
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(client.submit("churn", AGE, id=job)) for job in ("gone", "stays")]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
    assert waiting[0].cancelled()
    assert [handle.id for handle in await asyncio.gather(first, waiting[1])] == ["first", "stays"]
    assert queued_ids(server) == ["first", "stays"]


async def test_the_time_of_one_caller_ends_no_other(client: AsyncClient, server: redis.Redis, redis_url: str):
    with stopped(redis_url):
        patient = asyncio.create_task(client.submit("churn", AGE))
        with pytest.raises(BrokerUnavailable, match="in time"):
            await client.predict("churn", AGE, id="hasty", timeout=0.2)
        assert not patient.done()
    await asyncio.wait_for(patient, 10)


async def test_a_connection_that_says_nothing_holds_up_only_its_own_callers(redis_url: str, server: redis.Redis):
    settings = Settings(redis_url="redis://unused", command_timeout=6)
    with stalling_proxy(redis_url) as proxy:
        async with AsyncClient(proxy.url, settings=settings, check=False) as client:
            await client.submit("churn", AGE, id="warm")
            assert proxy.stall() == 1
            stalled = asyncio.create_task(client.submit("churn", AGE, id="stalled"))
            await asyncio.sleep(0.01)
            jobs = await asyncio.wait_for(
                asyncio.gather(*(client.submit("churn", AGE, id=f"other-{n}") for n in range(5))), 5
            )
            assert not stalled.done()
            assert queued_ids(server) == ["warm", *(job.id for job in jobs)]
            assert count_script_calls(server) >= 2
            await asyncio.wait_for(client.submit("churn", AGE, id="later"), 5)
            assert (await asyncio.wait_for(stalled, 15)).id == "stalled", (
                "it is tried again over another connection"
            )
    assert sorted(queued_ids(server)) == sorted(["warm", *(job.id for job in jobs), "later", "stalled"])


async def test_a_crash_of_redis_makes_one_job_of_each_id():
    with EmbeddedRedis("--appendonly", "yes", "--appendfsync", "always") as own:
        async with AsyncClient(own.url, check=False) as client:
            await client.submit("churn", AGE, id="warm")

            async def submit(caller: int) -> list[str]:
                return [(await client.submit("churn", AGE, id=f"{caller}-{turn}")).id for turn in range(20)]

            tasks = [asyncio.create_task(submit(caller)) for caller in range(30)]
            await asyncio.sleep(0.02)
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
            accepted = [job for jobs in await asyncio.gather(*tasks) for job in jobs]
        with redis.Redis.from_url(own.url) as server:
            assert sorted(queued_ids(server)) == sorted(["warm", *accepted])
            for caller in range(30):
                mine = [job for job in queued_ids(server) if job.startswith(f"{caller}-")]
                assert mine == [f"{caller}-{turn}" for turn in range(20)], "in the order of the caller"


async def test_an_outage_is_told_to_every_caller_with_an_error_of_its_own(redis_url: str):
    settings = Settings(redis_url="redis://127.0.0.1:1/0", command_timeout=2)
    async with AsyncClient(settings=settings, check=False) as client:
        errors = await submit_all(client, 20)
    assert {type(error) for error in errors} == {BrokerUnavailable}
    assert len({id(error.__cause__) for error in errors if isinstance(error, BaseException)}) == 20


async def test_closing_a_client_waits_for_the_calls_under_way(redis_url: str, server: redis.Redis):
    client = AsyncClient(redis_url, check=False)
    await client.submit("churn", AGE)
    tasks = [asyncio.create_task(client.submit("churn", AGE)) for _ in range(20)]
    await asyncio.sleep(0)
    await client.close()
    await asyncio.gather(*tasks)
    assert len(queued_ids(server)) == 21


async def test_closing_a_client_in_an_outage_ends_the_calls(server: redis.Redis, redis_url: str):
    client = AsyncClient(redis_url, check=False)
    await client.submit("churn", AGE)
    with stopped(redis_url):
        task = asyncio.create_task(client.submit("churn", AGE))
        await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(BrokerUnavailable, match="closed"):
            await task


async def test_predictions_of_many_callers_share_calls(client: AsyncClient, server: redis.Redis, redis_url: str):
    with AnsweringWorker(redis_url):
        await client.predict("churn", AGE, timeout=20)
        server.config_resetstat()
        predictions = await asyncio.gather(*(client.predict("churn", age, timeout=20) for age in ages(64)))
        assert [prediction.prediction for prediction in predictions] == [2 * age for age in range(64)]
        stats = server.info("commandstats")
    assert stats["cmdstat_lpush"]["calls"] == 1
    assert "cmdstat_mget" not in stats
    await wait_until_async(lambda: server.pubsub_channels("celery-task-meta-*") == [])
