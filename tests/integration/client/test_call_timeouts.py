"""A timeout of a call, or of a client, ends it while Redis is stopped, drops packets or trickles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from headrace import AsyncClient, BrokerUnavailable, Client, JobCancelled, ResultTimeout
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.silent_redis import dropping_port, stopped, trickling_server
from tests.support.submitting import AGE, CLIENTS, ClientName

#: Seconds of a call, and of a client whose calls are to end sooner.
SHORT, LONG = 0.5, 60.0
#: Seconds beyond a limit for a slow machine: the sum is far from LONG.
MARGIN = 12.0

CALLS: dict[str, Callable[[Any, float | None], Any]] = {
    "submit": lambda client, seconds: client.submit("churn", AGE, timeout=seconds),
    "submit with an id": lambda client, seconds: client.submit("churn", AGE, id="a", timeout=seconds),
    "submit_many": lambda client, seconds: client.submit_many("churn", [AGE] * 300, timeout=seconds),
    "status": lambda client, seconds: client.job("a").status(seconds),
    "explain": lambda client, seconds: client.job("a").explain(seconds),
    "cancel": lambda client, seconds: client.job("a").cancel(seconds),
    "models": lambda client, seconds: client.models(timeout=seconds),
    "queues": lambda client, seconds: client.queues(timeout=seconds),
    "run.status": lambda client, seconds: client.bulk_run("a").status(seconds),
}


@pytest.fixture(params=["stopped", "dropping", "trickling"])
def faulty_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a server that is stopped, drops packets, or trickles."""
    with ExitStack() as stack:
        if request.param == "stopped":
            server = stack.enter_context(EmbeddedRedis("--appendfsync", "no"))
            stack.enter_context(stopped(server.url))
            yield server.url
        elif request.param == "dropping":
            yield f"redis://127.0.0.1:{stack.enter_context(dropping_port())}/0"
        else:
            yield f"redis://:secret@127.0.0.1:{stack.enter_context(trickling_server())}/0"


def time_calls(
    client_name: ClientName, url: str, timeouts: dict[str, float], seconds: float | None
) -> list[float]:
    """Make all calls at the same time with a new client, and return the seconds that each took."""
    if client_name == "AsyncClient":
        return asyncio.run(time_calls_async(url, timeouts, seconds))

    def time_call(call: Callable[[Any, float | None], Any]) -> float:
        started_at = time.monotonic()
        with pytest.raises((BrokerUnavailable, ResultTimeout)):
            call(client, seconds)
        return time.monotonic() - started_at

    with Client(url, check=False, **timeouts) as client, ThreadPoolExecutor(len(CALLS)) as pool:
        return list(pool.map(time_call, CALLS.values()))


async def time_calls_async(url: str, timeouts: dict[str, float], seconds: float | None) -> list[float]:
    async def time_call(call: Callable[[Any, float | None], Awaitable[Any]]) -> float:
        started_at = time.monotonic()
        with pytest.raises((BrokerUnavailable, ResultTimeout)):
            await call(client, seconds)
        return time.monotonic() - started_at

    async with AsyncClient(url, check=False, **timeouts) as client:
        return await asyncio.gather(*map(time_call, CALLS.values()))


@pytest.mark.parametrize("client_name", CLIENTS)
def test_the_timeout_of_a_call_is_for_the_whole_call(client_name: ClientName, faulty_url: str):
    timeouts = {"timeout": LONG, "connect_timeout": LONG}
    durations = dict(zip(CALLS, time_calls(client_name, faulty_url, timeouts, SHORT), strict=True))
    assert {name: seconds for name, seconds in durations.items() if seconds > SHORT + MARGIN} == {}


@pytest.mark.parametrize("client_name", CLIENTS)
def test_without_one_a_call_has_the_timeout_of_the_client(
    client_name: ClientName, faulty_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEADRACE_COMMAND_TIMEOUT", str(LONG))
    monkeypatch.setenv("HEADRACE_CONNECT_TIMEOUT", str(LONG))
    durations = dict(zip(CALLS, time_calls(client_name, faulty_url, {"timeout": SHORT}, None), strict=True))
    assert {name: seconds for name, seconds in durations.items() if seconds > 2 * SHORT + MARGIN} == {}


def test_calls_with_a_timeout_do_their_work_when_redis_answers(redis_url: str):
    with Client(redis_url, check=False, timeout=LONG, connect_timeout=LONG) as client:
        job = client.submit("churn", AGE, timeout=LONG)
        others = client.submit_many("churn", [AGE] * 3, timeout=LONG)
        assert [other.status(LONG) for other in (job, *others)] == ["waiting"] * 4
        assert job.cancel(LONG)
        assert others[0].cancel(timeout=0), "0 is no limit for Redis, which answers at once"
        with pytest.raises(JobCancelled):
            job.result(LONG)
        assert client.models(timeout=LONG) == []
