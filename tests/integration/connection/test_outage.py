"""Submits and waits survive outages of Redis and of the network: a submit confirms its job, once, or raises."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import redis

from headrace import AsyncClient, BrokerUnavailable, Client
from headrace.connection.retry import RetryPolicy
from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.chaos.proxy import Proxy
from tests.support.answering_worker import AnsweringWorker
from tests.support.faults import repeatedly
from tests.support.redis_servers import SERVERS, find_server
from tests.support.submitting import (
    AGE,
    CLIENTS,
    QUEUE,
    ClientName,
    Submitter,
    count_waiting,
    in_background,
    settings,
    submit_many,
)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    """Run a server that has writes on disk before it confirms them."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def admin(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """Return a client of the emptied server, to inspect it and to inject faults."""
    with redis.Redis.from_url(server.url, client_name="admin") as admin:
        admin.flushall()
        yield admin


@pytest.mark.parametrize("client_name", CLIENTS)
def test_submits_survive_a_crash_and_a_restart(client_name: ClientName, server: EmbeddedRedis, admin: redis.Redis):
    submitter = Submitter(client_name, settings(server.url))
    restarted = threading.Event()
    with in_background(server.kill, lambda: time.sleep(0.5), server.start, restarted.set, delay=0.2):
        submitter.submit_while(lambda _: not restarted.is_set())
        submitter.submit(5)
    assert submitter.raised == []
    assert len(submitter.confirmed) > 10
    assert count_waiting(admin) == Counter(submitter.confirmed)


def test_an_outage_that_outlasts_the_timeout_of_a_command_is_raised(server: EmbeddedRedis):
    with Client(settings=settings(server.url, 1), check=False) as client:
        client.submit("churn", AGE)
        server.kill()
        try:
            started_at = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="cannot be reached"):
                client.submit("churn", AGE)
            assert time.monotonic() - started_at > 0.5
        finally:
            server.start()
        assert client.submit("churn", AGE).status() == "waiting"


def test_the_timeout_of_a_prediction_bounds_its_submit_too(server: EmbeddedRedis):
    with Client(settings=settings(server.url, 60), check=False) as client:
        client.submit("churn", AGE)
        server.kill()
        try:
            started_at = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="cannot be reached"):
                client.predict("churn", AGE, timeout=0.2)
            assert time.monotonic() - started_at < 60  # before the timeout of a command
        finally:
            server.start()


@pytest.mark.parametrize("client_name", CLIENTS)
def test_submits_survive_the_killing_of_every_connection(
    client_name: ClientName, server: EmbeddedRedis, admin: redis.Redis
):
    submitter = Submitter(client_name, settings(server.url))
    with repeatedly(lambda: admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")):
        submitter.submit(300)
    assert submitter.raised == []
    assert count_waiting(admin) == Counter(submitter.confirmed)


def test_predictions_survive_the_killing_of_every_connection(server: EmbeddedRedis, admin: redis.Redis):
    def kill() -> None:
        # Not that of the answering worker: it pops jobs, and a reply that it never reads would lose a job.
        for connection in admin.client_list():
            if connection["name"] != "answering" and connection["id"] != str(admin.client_id()):
                with contextlib.suppress(redis.ResponseError):  # the connection was closed in between
                    admin.execute_command("CLIENT", "KILL", "ID", connection["id"])

    with (
        Client(settings=settings(server.url), check=False) as client,
        AnsweringWorker(server.url),
        repeatedly(kill, every=0.2),
    ):
        started_at = time.monotonic()
        while time.monotonic() - started_at < 2:
            assert client.predict("churn", AGE, timeout=15).prediction == 82


@pytest.mark.parametrize("client_name", CLIENTS)
@pytest.mark.parametrize("name", SERVERS)
def test_submits_survive_flushed_scripts(client_name: ClientName, name: str):
    with EmbeddedRedis(server=find_server(name)) as server, redis.Redis.from_url(server.url) as admin:
        submitter = Submitter(client_name, settings(server.url))
        with repeatedly(admin.script_flush, every=0.002):
            submitter.submit(200)
        assert submitter.raised == []
        assert count_waiting(admin) == Counter(submitter.confirmed)


@pytest.mark.parametrize("then", ["cut", "silent"])
@pytest.mark.parametrize("client_name", CLIENTS)
def test_a_lost_reply_leaves_one_job_and_a_confirmed_submit(
    client_name: ClientName, then: Literal["cut", "silent"], server: EmbeddedRedis, admin: redis.Redis
):
    with Proxy(server.port) as proxy:
        submitter = Submitter(client_name, settings(proxy.url, 0.5))
        submitter.submit(1)  # the server has the script then, so the next reply is that of the job
        proxy.lose_reply(b"order-1", then=then)
        submitter.submit(1, id="order-1")
        assert proxy.lost_replies == 1
    assert submitter.raised == []
    assert count_waiting(admin) == Counter(submitter.confirmed)
    assert count_waiting(admin)["order-1"] == 1


@pytest.mark.parametrize("then", ["cut", "silent"])
@pytest.mark.parametrize("client_name", CLIENTS)
def test_lost_replies_in_the_middle_of_many_leave_each_job_once(
    client_name: ClientName, then: Literal["cut", "silent"], server: EmbeddedRedis, admin: redis.Redis
):
    ids = [f"row-{number:04}" for number in range(1000)]
    with Proxy(server.port) as proxy:
        chosen = settings(proxy.url, 2)
        for lost in ("row-0100", "row-0400", "row-0999"):
            proxy.lose_reply(lost.encode(), then=then)
        assert submit_many(client_name, chosen, ids) == ids
        assert proxy.lost_replies == 3
    assert count_waiting(admin) == Counter(ids)


@pytest.mark.parametrize("client_name", CLIENTS)
def test_connections_cut_while_many_are_submitted_leave_each_job_once(
    client_name: ClientName, server: EmbeddedRedis, admin: redis.Redis
):
    ids = [f"row-{number:05}" for number in range(20_000)]
    with Proxy(server.port) as proxy, repeatedly(proxy.cut, every=0.1):
        assert submit_many(client_name, settings(proxy.url), ids) == ids
    assert count_waiting(admin) == Counter(ids)


def wait_for_clients(count: int, admin: redis.Redis) -> None:
    """Wait until Redis has at most `count` clients, as it notices closed connections with a delay."""
    deadline = time.monotonic() + 5
    while admin.info("clients")["connected_clients"] > count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interrupted_rows(error: BaseException) -> Iterator[Any]:
    """Return rows of a source that fails after the first call with jobs was sent."""
    yield from [AGE] * 250
    raise error


def test_a_client_is_usable_after_an_interrupt_while_jobs_are_sent(server: EmbeddedRedis, admin: redis.Redis):
    with Client(settings=settings(server.url), check=False) as client:
        client.submit("churn", AGE)
        before = admin.info("clients")["connected_clients"]
        for _ in range(5):
            with pytest.raises(KeyboardInterrupt):
                client.submit_many("churn", interrupted_rows(KeyboardInterrupt()))
        assert [job.id for job in client.submit_many("churn", [AGE] * 2, ids=["a", "b"])] == ["a", "b"]
        wait_for_clients(before, admin)


async def test_an_asyncio_client_is_usable_after_an_interrupt_and_leaves_no_task_that_waits(
    server: EmbeddedRedis, admin: redis.Redis
):
    async with AsyncClient(settings=settings(server.url), check=False) as client:
        await client.submit("churn", AGE)
        before = admin.info("clients")["connected_clients"]
        for _ in range(5):
            admin.client_pause(500, all=False)  # delays the reply
            with pytest.raises(ZeroDivisionError):
                await client.submit_many("churn", interrupted_rows(ZeroDivisionError()))
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            assert all(task.cancelling() for task in tasks), tasks
            admin.client_unpause()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert [job.id for job in await client.submit_many("churn", [AGE] * 2, ids=["a", "b"])] == ["a", "b"]
        wait_for_clients(before + 1, admin)


@pytest.mark.parametrize("client_name", CLIENTS)
def test_any_number_of_silent_connections_costs_a_single_timeout(
    client_name: ClientName, server: EmbeddedRedis, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    errors: list[redis.RedisError] = []
    next_delay = RetryPolicy.next_delay

    def record_error(policy: RetryPolicy, error: redis.RedisError, **state: Any) -> float | None:
        errors.append(error)
        return next_delay(policy, error, **state)

    with Proxy(server.port) as proxy:
        chosen = settings(proxy.url, 2)

        async def submit_after_silence_async() -> None:
            async with AsyncClient(settings=chosen, check=False) as client:
                await client.submit("churn", AGE)
                await submit_at_once_async(client)
                assert proxy.go_silent() >= 2
                monkeypatch.setattr(RetryPolicy, "next_delay", record_error)
                await client.submit("churn", AGE)
                await submit_at_once_async(client)

        async def submit_at_once_async(client: AsyncClient) -> None:
            # Submits of one priority share a connection.
            await asyncio.gather(*(client.submit("churn", AGE, priority=priority) for priority in range(10)))

        def submit_after_silence() -> None:
            with Client(settings=chosen, check=False) as client:
                client.submit("churn", AGE)  # learns the form in which this server takes the script
                submit_at_once(client)
                assert proxy.go_silent() >= 2
                monkeypatch.setattr(RetryPolicy, "next_delay", record_error)
                client.submit("churn", AGE)
                submit_at_once(client)

        def submit_at_once(client: Client) -> None:
            proxy.delay(0.02)  # makes the submits overlap, so that each needs a connection
            threads = [
                threading.Thread(target=client.submit, args=("churn", AGE), kwargs={"priority": priority})
                for priority in range(10)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            proxy.delay(0)

        submit_after_silence() if client_name == "Client" else asyncio.run(submit_after_silence_async())
    assert [type(error) for error in errors] == [redis.TimeoutError]
    assert sum(admin.llen(key) for key in Keys().lists(QUEUE)) == 22


def test_a_wait_on_a_silent_connection_gets_the_outcome(
    server: EmbeddedRedis, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("headrace.results.listener_state.PING_SECONDS", 0.3)
    monkeypatch.setattr("headrace.results.listener._TICK_SECONDS", 0.05)
    with Proxy(server.port) as proxy, Client(settings=settings(proxy.url, 0.5), check=False) as client:
        job = client.submit("churn", AGE)
        with in_background(proxy.go_silent, lambda: answer_waiting_job(server.url), delay=0.3):
            assert job.result(timeout=15).prediction == 82


def answer_waiting_job(url: str) -> None:
    """Publish an outcome of the waiting job."""
    with AnsweringWorker(url) as worker:
        deadline = time.monotonic() + 10
        while not worker.received and time.monotonic() < deadline:
            time.sleep(0.01)


@pytest.mark.parametrize("name", SERVERS)
def test_submits_wait_for_a_redis_that_loads_its_data(name: str):
    with (
        EmbeddedRedis("--key-load-delay", "1000", server=find_server(name)) as server,
        redis.Redis.from_url(server.url) as admin,
        Client(settings=settings(server.url), check=False) as client,
    ):
        client.submit("churn", AGE)
        with admin.pipeline(transaction=False) as pipeline:
            for number in range(1500):
                pipeline.set(f"other:{number}", "x")
            pipeline.execute()
        server.kill()
        admin.close()
        with in_background(server.start):
            started_at = time.monotonic()
            client.submit("churn", AGE)
            assert time.monotonic() - started_at > 0.5, "Redis was loading its data"
        assert sum(count_waiting(admin).values()) == 2
