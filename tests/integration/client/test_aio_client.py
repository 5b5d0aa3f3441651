"""The asyncio client has the checks, promises and errors of the blocking client."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from headrace import AsyncClient, AsyncJobHandle, Client, JobHandle
from headrace.catalog.published import publish_contract
from headrace.errors import (
    BrokerUnavailable,
    HeadraceError,
    InvalidInput,
    JobCancelled,
    JobConflict,
    QueueFull,
    ResultTimeout,
    UnknownModel,
)
from headrace.results import aio_listener, listener_state
from headrace.results.reply_channel import SINGLE_WAIT_SECONDS
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.answering_worker import (
    CHURN,
    AnsweringWorker,
    double_age,
    publish_outcomes,
    subscribed_jobs,
    success,
)
from tests.support.waiting import wait_until_async

AGE = {"age": 41}


@pytest.fixture
async def client(redis_url: str, server: redis.Redis) -> AsyncIterator[AsyncClient]:
    publish_contract(server, Keys(), CHURN)
    async with AsyncClient(redis_url) as client:
        yield client


async def test_a_prediction_comes_back(client: AsyncClient, redis_url: str):
    with AnsweringWorker(redis_url):
        assert (await client.predict("churn", AGE, timeout=10)).prediction == 82
        job = await client.submit("churn", instances=[{"age": 1}, {"age": 2}])
        assert (await job.result(timeout=10)).predictions == [2, 4]
        assert (await job.status(), await job.done()) == ("success", True)


async def test_predict_fetches_nothing_for_a_new_id(client: AsyncClient, server: redis.Redis, redis_url: str):
    with AnsweringWorker(redis_url):
        await client.predict("churn", AGE, timeout=10)
        server.config_resetstat()
        for _ in range(10):
            await client.predict("churn", AGE, timeout=10)
    stats = server.info("commandstats")
    assert "cmdstat_mget" not in stats
    assert "cmdstat_subscribe" not in stats


@pytest.mark.parametrize(("callers", "channels"), [(2, 2), (20, 0)])
async def test_a_busy_client_waits_on_its_reply_channel_alone(
    client: AsyncClient, server: redis.Redis, redis_url: str, callers: int, channels: int
):
    subscribed: set[str] = set()

    def answer_late(job: str, instances: list[Any]) -> Outcome:
        if len(worker.received) == 1:
            time.sleep(4 * SINGLE_WAIT_SECONDS)
            subscribed.update(subscribed_jobs(server))
        return double_age(job, instances)

    with AnsweringWorker(redis_url, answer=answer_late) as worker:
        predictions = await asyncio.gather(*(client.predict("churn", AGE, timeout=20) for _ in range(callers)))
    assert [prediction.prediction for prediction in predictions] == [82] * callers
    assert len(subscribed) == channels


async def test_predict_with_an_id_returns_the_stored_outcome(client: AsyncClient, redis_url: str):
    with AnsweringWorker(redis_url) as worker:
        for _ in range(2):
            assert (await client.predict("churn", AGE, id="order-1", timeout=10)).prediction == 82
    assert worker.received == ["order-1"]


async def test_thousands_of_jobs_are_waited_for_on_one_connection(
    client: AsyncClient, server: redis.Redis, redis_url: str
):
    jobs = await client.submit_many("churn", [{"age": number} for number in range(1500)])
    server.config_resetstat()
    with AnsweringWorker(redis_url):
        done = [job async for job in client.as_completed(jobs, timeout=60)]
    assert {job.id: (await job.result()).prediction for job in done} == {
        job.id: 2 * n for n, job in enumerate(jobs)
    }
    stats = server.info("commandstats")
    assert stats["cmdstat_subscribe"]["calls"] <= 10
    assert stats["cmdstat_mget"]["calls"] < 150
    await wait_until_async(lambda: not subscribed_jobs(server))


async def test_many_tasks_wait_on_one_client(client: AsyncClient, redis_url: str):
    with AnsweringWorker(redis_url):
        predictions = await asyncio.gather(
            *(client.predict("churn", {"age": number}, timeout=30) for number in range(100))
        )
    assert [prediction.prediction for prediction in predictions] == [2 * number for number in range(100)]


async def test_bad_input_is_refused_before_anything_is_enqueued(client: AsyncClient, server: redis.Redis):
    with pytest.raises(InvalidInput, match="'age' must be a number"):
        await client.submit("churn", {"age": "x"})
    with pytest.raises(InvalidInput, match="instance 1"):
        await client.submit_many("churn", [AGE, {"agee": 1}])
    with pytest.raises(UnknownModel, match="did you mean 'churn'"):
        await client.predict("chrun", AGE)
    assert server.llen("predict.churn") == 0
    await wait_until_async(lambda: not subscribed_jobs(server))


async def test_the_same_id_is_one_job_and_other_input_a_conflict(client: AsyncClient, server: redis.Redis):
    await asyncio.gather(*(client.submit("churn", AGE, id="a") for _ in range(20)))
    assert server.llen("predict.churn") == 1
    with pytest.raises(JobConflict):
        await client.submit("churn", {"age": 1}, id="a")


async def test_a_full_queue_lists_the_accepted_jobs(redis_url: str):
    async with AsyncClient(settings=Settings(redis_url=redis_url, queue_limit=2), check=False) as client:
        with pytest.raises(QueueFull) as caught:
            await client.submit_many("churn", [AGE] * 3, ids=["a", "b", "c"])
    assert caught.value.accepted == ("a", "b")


async def test_a_job_is_cancelled(client: AsyncClient):
    job = await client.submit("churn", AGE)
    assert await job.cancel()
    with pytest.raises(JobCancelled):
        await job.result(timeout=10)


async def test_the_error_of_a_timeout_says_what_to_check(client: AsyncClient, server: redis.Redis):
    job = await client.submit("churn", AGE)
    with pytest.raises(ResultTimeout, match="it is waiting: is a worker running"):
        await job.result(timeout=0.05)
    with pytest.raises(ResultTimeout, match="1 of 1 jobs"):
        _ = [job async for job in client.as_completed([job], timeout=0.05)]
    publish_outcomes(server, success(job.id))
    assert (await job.result(timeout=0)).prediction == job.id
    await wait_until_async(lambda: not subscribed_jobs(server))


async def test_a_task_cancelled_while_it_waits_leaves_no_subscription(client: AsyncClient, server: redis.Redis):
    task = asyncio.create_task(client.job("a").result())
    await wait_until_async(lambda: len(subscribed_jobs(server)) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until_async(lambda: not subscribed_jobs(server))


async def test_a_lost_connection_loses_no_outcome(client: AsyncClient, server: redis.Redis):
    names = [f"j{number}" for number in range(200)]

    async def publish_all() -> None:
        await wait_until_async(lambda: len(subscribed_jobs(server)) == 200)
        for number, name in enumerate(names):
            if number % 50 == 0:
                server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await asyncio.sleep(0.01)
            publish_outcomes(server, success(name))

    task = asyncio.create_task(publish_all())
    done = [job.id async for job in client.as_completed([client.job(name) for name in names], timeout=30)]
    assert set(done) == set(names)
    await task


async def test_a_wait_survives_a_crash_of_redis():
    with EmbeddedRedis() as own_server:
        async with AsyncClient(own_server.url, check=False) as client:
            job = await client.submit("churn", AGE)
            task = asyncio.create_task(job.result(timeout=60))
            with redis.Redis.from_url(own_server.url) as server:
                await wait_until_async(lambda: len(subscribed_jobs(server)) == 1)
            await asyncio.to_thread(own_server.kill)
            with pytest.raises(BrokerUnavailable, match="cannot be reached"):
                await client.job("b").result(timeout=0.5)
            await asyncio.to_thread(own_server.start)
            with AnsweringWorker(own_server.url):
                assert (await task).prediction == 82


async def test_the_task_ends_without_waiters_and_the_next_wait_starts_another(
    client: AsyncClient, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listener_state, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(aio_listener, "_TICK_SECONDS", 0.02)
    with AnsweringWorker(redis_url):
        for _ in range(3):
            assert (await client.predict("churn", AGE, timeout=10)).prediction == 82
            await wait_until_async(
                lambda: "headrace-listener" not in {task.get_name() for task in asyncio.all_tasks()}
            )


async def test_closing_a_client_ends_the_waits_of_other_tasks(client: AsyncClient, server: redis.Redis):
    task = asyncio.create_task(client.job("a").result(timeout=30))
    await wait_until_async(lambda: len(subscribed_jobs(server)) == 1)
    await client.close()
    with pytest.raises(HeadraceError, match="closed while this call waited"):
        await task
    with pytest.raises(HeadraceError, match="closed"):
        await client.job("a").result(timeout=1)


async def test_models_queues_and_contracts_are_listed(client: AsyncClient):
    await client.submit_many("churn", iter([AGE, AGE]), priority=9)
    assert await client.models() == ["churn"]
    assert (await client.contract("churn")) == CHURN
    assert [depth.by_priority[9] for depth in await client.queues()] == [2]


@pytest.mark.parametrize(("blocking", "aio"), [(Client, AsyncClient), (JobHandle, AsyncJobHandle)])
def test_both_clients_have_the_same_methods_with_the_same_parameters(blocking: type, aio: type):
    for name, method in inspect.getmembers(blocking, inspect.isfunction):
        if not name.startswith("_"):
            assert list(inspect.signature(getattr(aio, name)).parameters) == list(
                inspect.signature(method).parameters
            ), name
