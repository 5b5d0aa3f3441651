"""An `AsyncClient` works in any event loop: one after the other, at the same time, after a fork."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator

import pytest
import redis

from headrace import AsyncClient, HeadraceError
from tests.support.answering_worker import AnsweringWorker
from tests.support.waiting import wait_until

AGE = {"age": 41}


@pytest.fixture
def url(redis_url: str) -> Iterator[str]:
    with AnsweringWorker(redis_url):
        yield redis_url


async def use(client: AsyncClient) -> list[float]:
    """Use the client in all ways that need a connection."""
    predictions = [(await client.predict("churn", AGE, timeout=20)).prediction]
    job = await client.submit("churn", AGE)
    predictions.append((await job.result(timeout=20)).prediction)
    jobs = await client.submit_many("churn", [{"age": age} for age in range(100)])
    async for finished in client.as_completed(jobs, timeout=20):
        predictions.append((await finished.result()).prediction)
    return sorted(predictions)


EXPECTED = sorted([82, 82, *(2 * age for age in range(100))])


@pytest.fixture
def count_connections(url: str, server: redis.Redis) -> Callable[[], int]:
    """Return a function that counts the connections to Redis that were opened since the test began."""
    before = {connection["id"] for connection in server.client_list()}

    def count() -> int:
        return sum(
            connection["id"] not in before and connection["name"] != "answering"
            for connection in server.client_list()
        )

    return count


def test_a_client_works_in_one_event_loop_after_the_other(url: str, count_connections: Callable[[], int]):
    client = AsyncClient(url, check=False)
    for _ in range(3):
        assert asyncio.run(use(client)) == EXPECTED
        assert count_connections() <= 4, "the connections of the former loop are closed"
    asyncio.run(client.close())
    wait_until(lambda: count_connections() == 0)
    del client
    gc.collect()  # a transport that was left open would warn here


def test_a_client_that_was_closed_works_in_a_new_loop(url: str):
    client = AsyncClient(url, check=False)

    async def use_and_close() -> list[float]:
        async with client:
            return await use(client)

    assert [asyncio.run(use_and_close()) for _ in range(2)] == [EXPECTED] * 2


def test_a_job_of_a_former_loop_has_its_result_in_another(url: str):
    client = AsyncClient(url, check=False)
    job = asyncio.run(client.submit("churn", AGE))
    assert asyncio.run(job.result(timeout=20)).prediction == 82
    assert asyncio.run(client.job(job.id).status()) == "success"
    asyncio.run(client.close())


def test_a_client_works_in_two_event_loops_at_the_same_time(url: str):
    client = AsyncClient(url, check=False)
    results: list[list[float]] = []
    errors: list[BaseException] = []
    together = threading.Barrier(3)

    async def use_together() -> list[float]:
        together.wait(20)
        return await use(client)

    def run() -> None:
        try:
            results.append(asyncio.run(use_together()))
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert results == [EXPECTED] * 3
    asyncio.run(client.close())


def test_closing_in_another_loop_ends_the_waits_of_the_first(url: str, count_connections: Callable[[], int]):
    client = AsyncClient(url, check=False)
    waiting = threading.Event()
    raised: list[BaseException] = []

    async def wait_for_an_unknown_job() -> None:
        await client.submit("other", AGE, id="never-run")
        asyncio.get_running_loop().call_later(0.2, waiting.set)
        await client.job("never-run").result(timeout=30)

    def run() -> None:
        try:
            asyncio.run(wait_for_an_unknown_job())
        except HeadraceError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert waiting.wait(20)
    asyncio.run(client.close())
    thread.join(20)
    assert [str(error) for error in raised] == ["the client was closed while this call waited"]
    wait_until(lambda: count_connections() == 0)


def test_a_loop_that_pauses_goes_on_with_its_connections(url: str):
    client = AsyncClient(url, check=False)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        for loop in (first, second, first, second):
            assert loop.run_until_complete(use(client)) == EXPECTED
        first.run_until_complete(client.close())
        assert second.run_until_complete(use(client)) == EXPECTED
        second.run_until_complete(client.close())
    finally:
        first.run_until_complete(asyncio.sleep(0))
        first.close()
        second.close()


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_process_has_connections_of_its_own_and_leaves_the_parents_alone(url: str, server: redis.Redis):
    client = AsyncClient(url, check=False)
    with asyncio.Runner() as runner:
        assert runner.run(use(client)) == EXPECTED
        before = {connection["id"] for connection in server.client_list()}
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.events.set_event_loop(None)
                code = 0 if asyncio.run(use(client)) == EXPECTED else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert runner.run(use(client)) == EXPECTED
        assert before <= {connection["id"] for connection in server.client_list()}
        runner.run(client.close())
