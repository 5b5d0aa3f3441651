"""The functions that `on_outcome` registers are called with each ended job until a signal ends the program."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading

import pytest
import redis

from headrace import AsyncClient, BrokerUnavailable, Client, FinishedJob, InvalidInput, on_outcome
from headrace.client import handlers
from headrace.wire.keys import Keys
from tests.support.stored_entries import store_entry, stored_entries
from tests.support.waiting import wait_until

KEYS = Keys()


@pytest.fixture(autouse=True)
def _no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "handlers", {})


def test_each_name_has_its_handler_and_a_signal_ends_all(server: redis.Redis, redis_url: str):
    handled: list[tuple[str, str]] = []

    def handle(name: str, job: FinishedJob) -> None:
        handled.append((name, job.id))
        if len(handled) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    for name in ("orders", "reports"):
        for number in (1, 2):
            store_entry(server, f"{name}-{number}", name=name)
        on_outcome(name)(lambda job, name=name: handle(name, job))
    before = signal.getsignal(signal.SIGTERM)
    with Client(redis_url) as client:
        client.run_listeners()
    assert sorted(handled) == [(name, f"{name}-{number}") for name in ("orders", "reports") for number in (1, 2)]
    assert signal.getsignal(signal.SIGTERM) is before
    assert not server.exists(KEYS.listen_due)


def test_only_the_handlers_of_these_names_are_called(server: redis.Redis, redis_url: str):
    store_entry(server, "a")
    store_entry(server, "b", name="reports")
    on_outcome("reports")(lambda _: None)

    @on_outcome("orders")
    def stop(_: FinishedJob) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with Client(redis_url) as client:
        client.run_listeners("orders")
    assert [entry.job for entry in stored_entries(server)] == ["b"]


def test_an_error_of_a_handler_is_logged_and_its_job_delivered_again(
    server: redis.Redis, redis_url: str, caplog: pytest.LogCaptureFixture
):
    deliveries: list[int] = []
    store_entry(server, "a")

    @on_outcome("orders")
    def fail_once(job: FinishedJob) -> None:
        deliveries.append(job.delivery)
        if job.delivery == 1:
            raise OSError("the disk is full")
        os.kill(os.getpid(), signal.SIGTERM)

    with caplog.at_level(logging.ERROR, "headrace.listen"), Client(redis_url) as client:
        client.run_listeners()
    assert deliveries == [1, 2]
    assert "the handler of orders failed for job a" in caplog.text
    assert not server.exists(KEYS.listen_due)


@pytest.mark.parametrize("fails", [False, True])
def test_handlers_of_an_asyncio_client_are_awaited(server: redis.Redis, redis_url: str, fails: bool):
    deliveries: list[int] = []
    store_entry(server, "a")

    @on_outcome("orders")
    async def handle(job: FinishedJob) -> None:
        await asyncio.sleep(0)
        deliveries.append(job.delivery)
        if fails and job.delivery == 1:
            raise OSError
        os.kill(os.getpid(), signal.SIGTERM)

    async def run() -> None:
        async with AsyncClient(redis_url) as client:
            await client.run_listeners()

    asyncio.run(run())
    assert deliveries == ([1, 2] if fails else [1])
    assert not server.exists(KEYS.listen_due)


def test_a_cancelled_task_ends_its_listeners(server: redis.Redis, redis_url: str):
    store_entry(server, "a")

    @on_outcome("orders")
    async def handle(_: FinishedJob) -> None:
        task.cancel()
        await asyncio.sleep(60)

    async def run() -> None:
        nonlocal task
        async with AsyncClient(redis_url) as client:
            task = asyncio.create_task(client.run_listeners())
            with pytest.raises(asyncio.CancelledError):
                await task

    task: asyncio.Task[None]
    asyncio.run(run())
    assert [(entry.job, entry.deliveries) for entry in stored_entries(server)] == [("a", 1)]


def test_in_another_thread_signals_stay_as_they_are(server: redis.Redis, redis_url: str):
    store_entry(server, "a")
    handled: list[str] = []
    on_outcome("orders")(lambda job: handled.append(job.id))
    before = signal.getsignal(signal.SIGTERM)
    with Client(redis_url) as client:
        listeners = []
        listen = client.listen

        def note(*arguments: str, **options: float) -> object:
            listeners.append(listen(*arguments, **options))
            return listeners[-1]

        client.listen = note  # type: ignore[method-assign]
        thread = threading.Thread(target=client.run_listeners)
        thread.start()
        wait_until(lambda: handled == ["a"])
        assert signal.getsignal(signal.SIGTERM) is before
        listeners[0].stop()
        thread.join()


def test_a_user_whom_redis_refuses_ends_all_with_the_error(redis_url: str):
    on_outcome("orders")(lambda _: None)
    with (
        Client("redis://nobody:secret@" + redis_url.partition("//")[2]) as client,
        pytest.raises(BrokerUnavailable),
    ):
        client.run_listeners()


def test_what_cannot_be_run_is_refused(redis_url: str):
    with Client(redis_url) as client:
        with pytest.raises(InvalidInput, match="no handler is registered; `@headrace"):
            client.run_listeners()
        on_outcome("orders")(lambda _: None)
        with pytest.raises(InvalidInput, match="no handler is registered for 'order'; did you mean"):
            client.run_listeners("order")
        with pytest.raises(InvalidInput, match="has a handler already"):
            on_outcome("orders")(lambda _: None)
        with pytest.raises(InvalidInput, match="`name` is a name"):
            on_outcome("a b")
        with pytest.raises(InvalidInput, match="`lease` is the seconds"):
            on_outcome("other", lease=0)

    async def run() -> None:
        async with AsyncClient(redis_url) as other:
            await other.run_listeners()

    with pytest.raises(InvalidInput, match="no coroutine function: run it with Client"):
        asyncio.run(run())


def test_a_second_signal_does_what_it_did_before():
    stopped: list[bool] = []

    def interrupt_twice() -> None:
        with handlers.stop_on_signals(lambda: stopped.append(True)):
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    assert stopped == [True]
