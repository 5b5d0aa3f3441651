"""Every call of a client ends in time while Redis is silent, trickles, drops packets, or has a name that hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from headrace import AsyncClient, AsyncJobHandle, BrokerUnavailable, Client, HeadraceError, ResultTimeout, Settings
from headrace.batch import predict_rows
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.chaos.proxy import Proxy
from tests.support.silent_redis import dropping_port, stopped, trickling_server
from tests.support.stock_worker import publish_stock_contract
from tests.support.submitting import AGE, CLIENTS, ClientName

#: Seconds for a command and for a connection.
COMMAND_SECONDS = 4.0
#: Seconds that a caller waits for an outcome.
WAIT_SECONDS = 0.5
#: Seconds beyond a limit for a slow machine and the last look at a job. A limit that is repeated costs more.
MARGIN = 3.0

#: Each call, with its limit in seconds.
CALLS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "predict": (lambda client: client.predict("churn", AGE, timeout=WAIT_SECONDS), WAIT_SECONDS),
    "predict with an id": (
        lambda client: client.predict("churn", AGE, id="x", timeout=WAIT_SECONDS),
        WAIT_SECONDS,
    ),
    "result": (lambda client: client.job("x").result(timeout=WAIT_SECONDS), WAIT_SECONDS),
    "as_completed": (
        lambda client: next(iter(client.as_completed([client.job("x")], timeout=WAIT_SECONDS))),
        WAIT_SECONDS,
    ),
    "submit": (lambda client: client.submit("churn", AGE), COMMAND_SECONDS),
    "submit_many": (lambda client: client.submit_many("churn", [AGE] * 300), COMMAND_SECONDS),
    "status": (lambda client: client.job("x").status(), COMMAND_SECONDS),
    "cancel": (lambda client: client.job("x").cancel(), COMMAND_SECONDS),
    "contract": (lambda client: client.contract("churn"), COMMAND_SECONDS),
    "models": (lambda client: client.models(), COMMAND_SECONDS),
}


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis("--appendfsync", "no") as server:
        yield server


def settings(url: str) -> Settings:
    return Settings(redis_url=url, command_timeout=COMMAND_SECONDS, connect_timeout=COMMAND_SECONDS)


def assert_calls_end_in_time(client_name: ClientName, url: str) -> None:
    """Make all calls at the same time with a new client."""
    if client_name == "AsyncClient":
        late, errors, closing = asyncio.run(make_calls_async(url))
    else:
        late, errors, closing = make_calls(url)
    assert late == {}
    assert set(errors) == set(CALLS)
    assert all(issubclass(error, BrokerUnavailable | ResultTimeout) for error in errors.values())
    assert closing < 1 + MARGIN, "closing the client is bounded too"


Calls = tuple[dict[str, float], dict[str, type[BaseException]], float]


def make_calls(url: str) -> Calls:
    late: dict[str, float] = {}
    errors: dict[str, type[BaseException]] = {}

    def time_call(name: str) -> None:
        call, limit = CALLS[name]
        started_at = time.monotonic()
        with pytest.raises(HeadraceError) as raised:
            call(client)
        errors[name] = raised.type
        if (seconds := time.monotonic() - started_at) > limit + MARGIN:
            late[name] = seconds

    client = Client(settings=settings(url), check=False)
    with ThreadPoolExecutor(len(CALLS)) as pool:
        list(pool.map(time_call, CALLS))
    started_at = time.monotonic()
    client.close()
    return late, errors, time.monotonic() - started_at


async def make_calls_async(url: str) -> Calls:
    late: dict[str, float] = {}
    errors: dict[str, type[BaseException]] = {}

    async def time_call(name: str) -> None:
        call, limit = CALLS[name]
        started_at = time.monotonic()
        with pytest.raises(HeadraceError) as raised:
            await (first_completed() if name == "as_completed" else call(client))
        errors[name] = raised.type
        if (seconds := time.monotonic() - started_at) > limit + MARGIN:
            late[name] = seconds

    async def first_completed() -> AsyncJobHandle:
        return await anext(aiter(client.as_completed([client.job("x")], timeout=WAIT_SECONDS)))

    client = AsyncClient(settings=settings(url), check=False)
    await asyncio.gather(*map(time_call, CALLS))
    started_at = time.monotonic()
    await client.close()
    return late, errors, time.monotonic() - started_at


@pytest.mark.parametrize("client_name", CLIENTS)
@pytest.mark.parametrize("scheme", ["redis", "rediss", "sentinel"])
def test_calls_end_while_redis_is_stopped(client_name: ClientName, scheme: str, server: EmbeddedRedis):
    url = f"{scheme}://127.0.0.1:{server.port}/0"
    if scheme == "sentinel":
        url += "?master_name=jobs"
    with stopped(server.url):
        assert_calls_end_in_time(client_name, url)


@pytest.mark.parametrize("client_name", CLIENTS)
def test_calls_end_while_a_server_trickles(client_name: ClientName):
    with trickling_server() as port:
        assert_calls_end_in_time(client_name, f"redis://:secret@127.0.0.1:{port}/0")


@pytest.mark.parametrize("client_name", CLIENTS)
def test_calls_end_while_packets_are_dropped(client_name: ClientName):
    with dropping_port() as port:
        assert_calls_end_in_time(client_name, f"redis://127.0.0.1:{port}/0")


@pytest.mark.parametrize("client_name", CLIENTS)
def test_calls_end_while_the_name_of_the_host_is_looked_up(
    client_name: ClientName, monkeypatch: pytest.MonkeyPatch
):
    end = threading.Event()
    lookups: list[str] = []

    def hang(host: str, *_: Any, **__: Any) -> Any:
        lookups.append(host)
        end.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        assert_calls_end_in_time(client_name, "redis://redis.invalid/0")
    finally:
        end.set()
    assert lookups == ["redis.invalid"], "calls at the same time share a look-up"


@pytest.mark.parametrize("client_name", CLIENTS)
def test_calls_end_when_redis_falls_silent_between_them(client_name: ClientName, server: EmbeddedRedis):
    limits: list[tuple[str, float, float]] = []

    async def use_async() -> None:
        async with AsyncClient(settings=settings(server.url), check=False) as client:
            await asyncio.gather(*(client.submit("churn", AGE) for _ in range(4)))
            with pytest.raises(ResultTimeout):
                await client.predict("churn", AGE, timeout=0.1)
            with stopped(server.url):
                await time_async("predict", lambda: client.predict("churn", AGE, timeout=WAIT_SECONDS))
                await time_async("submit", lambda: client.submit("churn", AGE))

    async def time_async(name: str, call: Callable[[], Awaitable[Any]]) -> None:
        started_at = time.monotonic()
        with pytest.raises(HeadraceError):
            await call()
        limits.append((name, time.monotonic() - started_at, CALLS[name][1]))

    def use() -> None:
        with Client(settings=settings(server.url), check=False) as client:
            client.submit_many("churn", [AGE] * 1000)
            with pytest.raises(ResultTimeout):
                client.predict("churn", AGE, timeout=0.1)
            with stopped(server.url):
                for name in ("predict", "submit"):
                    started_at = time.monotonic()
                    with pytest.raises(HeadraceError):
                        CALLS[name][0](client)
                    limits.append((name, time.monotonic() - started_at, CALLS[name][1]))

    if client_name == "AsyncClient":
        asyncio.run(use_async())
    else:
        use()
    assert [name for name, seconds, limit in limits if seconds > limit + MARGIN] == []
    assert len(limits) == 2


@pytest.mark.parametrize("client_name", CLIENTS)
def test_a_client_works_again_once_redis_answers(client_name: ClientName, server: EmbeddedRedis):
    async def use_async() -> str:
        async with AsyncClient(settings=settings(server.url), check=False) as client:
            with stopped(server.url), pytest.raises(HeadraceError):
                await client.predict("churn", AGE, id="a", timeout=WAIT_SECONDS)
            jobs = [await client.submit("churn", AGE, id=name) for name in "abc"]
            return await jobs[-1].status()

    def use() -> str:
        with Client(settings=settings(server.url), check=False) as client:
            with stopped(server.url), pytest.raises(HeadraceError):
                client.predict("churn", AGE, id="a", timeout=WAIT_SECONDS)
            jobs = [client.submit("churn", AGE, id=name) for name in "abc"]
            return jobs[-1].status()

    assert (asyncio.run(use_async()) if client_name == "AsyncClient" else use()) == "waiting"


@pytest.mark.parametrize("client_name", CLIENTS)
def test_the_error_of_a_timeout_quotes_the_timeout_of_the_caller(client_name: ClientName, server: EmbeddedRedis):
    async def use_async() -> None:
        async with AsyncClient(settings=settings(server.url), check=False) as client:
            await client.predict("churn", AGE, timeout=0.4)

    def use() -> None:
        with Client(settings=settings(server.url), check=False) as client:
            client.predict("churn", AGE, timeout=0.4)

    with pytest.raises(ResultTimeout, match=r"has no outcome after 0\.4 s"):
        asyncio.run(use_async()) if client_name == "AsyncClient" else use()


def test_a_batch_ends_in_time_while_redis_is_stopped(server: EmbeddedRedis):
    publish_stock_contract(server.url)
    with Client(settings=settings(server.url)) as client, ExitStack() as stack:
        rows = predict_rows(client, "churn", [{"age": 1, "plan": "x"}] * 10, timeout=3, rows_per_job=1)
        stack.callback(rows.close)
        stack.enter_context(stopped(server.url))
        started_at = time.monotonic()
        with pytest.raises((ResultTimeout, BrokerUnavailable)):
            next(rows)
        assert time.monotonic() - started_at < 3 + 2 + MARGIN
        started_at = time.monotonic()
        with pytest.raises((ResultTimeout, BrokerUnavailable)):
            predict_rows(client, "churn", [{"age": 1, "plan": "x"}], timeout=WAIT_SECONDS)
        assert time.monotonic() - started_at < WAIT_SECONDS + MARGIN


@pytest.mark.parametrize("client_name", CLIENTS)
def test_an_interrupted_handshake_leaves_no_connection_behind(client_name: ClientName, server: EmbeddedRedis):
    """The replies of a handshake that was given up must not be taken for those of the next command."""
    with Proxy(server.port) as proxy:

        async def use_async() -> list[str]:
            async with AsyncClient(settings=settings(proxy.url), check=False) as client:
                proxy.delay(0.3)
                with pytest.raises(HeadraceError):
                    await client.predict("churn", AGE, id="slow", timeout=0.4)
                proxy.delay(0)
                return [await client.job(name).status() for name in ("never", "slow", "never")]

        def use() -> list[str]:
            with Client(settings=settings(proxy.url), check=False) as client:
                proxy.delay(0.3)
                with pytest.raises(HeadraceError):
                    client.predict("churn", AGE, id="slow", timeout=0.4)
                proxy.delay(0)
                return [client.job(name).status() for name in ("never", "slow", "never")]

        statuses = asyncio.run(use_async()) if client_name == "AsyncClient" else use()
    assert statuses[0] == statuses[2] == "unknown"
    assert statuses[1] in {"unknown", "waiting"}
