"""Limits of callers: jobs that are taken together, and requests under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from headrace.catalog.callers import Rate
from headrace.catalog.rate import Grant
from headrace_gateway.callers import Caller
from headrace_gateway.limits import LimitsMiddleware, RateLimiter, RequestCounts
from headrace_gateway.problems import Problem

SHOP, BANK = Caller(name="shop", rate=Rate(5)), Caller(name="bank", rate=Rate(3))


class Quotas:
    """Quotas of callers that never refill, and the calls that took from them."""

    def __init__(self, **left: int) -> None:
        self.left, self.calls = left, []

    async def __call__(self, rates: Mapping[str, tuple[Rate, int]]) -> dict[str, Grant]:
        self.calls.append({caller: jobs for caller, (_, jobs) in rates.items()})
        await asyncio.sleep(0.01)
        grants = {}
        for caller, (_, jobs) in rates.items():
            granted = min(jobs, self.left[caller])
            self.left[caller] -= granted
            grants[caller] = Grant(granted, self.left[caller], 0.0 if self.left[caller] else 0.3, 1.0)
        return grants


def get(app: Starlette, *paths: str) -> list[httpx.Response]:
    """Send requests to an app with the limits around it, one after the other."""

    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(LimitsMiddleware(app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(send())


def test_jobs_that_come_during_a_call_go_with_the_next_and_none_is_granted_twice():
    quotas = Quotas(shop=10, bank=2)

    async def call() -> list[Any]:
        limiter = RateLimiter(quotas)
        callers = [SHOP] * 8 + [BANK] * 4
        return await asyncio.gather(*(limiter.take(caller) for caller in callers))

    grants = asyncio.run(call())
    assert [grant.jobs for grant in grants] == [1] * 8 + [1, 1, 0, 0]
    assert quotas.calls == [{"shop": 8, "bank": 4}]
    assert [grant.left for grant in grants[:8]] == [9, 8, 7, 6, 5, 4, 3, 2]


def test_a_caller_alone_waits_for_no_other():
    quotas = Quotas(shop=3)

    async def call() -> None:
        limiter = RateLimiter(quotas)
        for _ in range(3):
            await limiter.take(SHOP)

    asyncio.run(call())
    assert quotas.calls == [{"shop": 1}] * 3


def test_a_caller_without_a_rate_asks_nothing():
    quotas = Quotas()
    assert asyncio.run(RateLimiter(quotas).take(Caller(name="free"))) is None
    assert quotas.calls == []


def test_a_caller_that_leaves_takes_nobody_with_it():
    quotas = Quotas(shop=3)

    async def call() -> list[int]:
        limiter = RateLimiter(quotas)
        takes = [asyncio.ensure_future(limiter.take(SHOP)) for _ in range(3)]
        await asyncio.sleep(0.001)
        takes[0].cancel()
        return [grant.jobs for grant in await asyncio.gather(*takes[1:]) if grant is not None]

    assert asyncio.run(call()) == [1, 1]


def test_an_error_reaches_all_who_wait_and_the_next_call_is_made():
    quotas = Quotas(shop=3)

    async def call() -> None:
        async def take(rates: Mapping[str, tuple[Rate, int]]) -> dict[str, Grant]:
            grants = await quotas(rates)
            if len(quotas.calls) == 1:
                raise ConnectionError("away")
            return grants

        limiter = RateLimiter(take)
        results = await asyncio.gather(*(limiter.take(SHOP) for _ in range(2)), return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionError] * 2
        assert await limiter.take(SHOP) is not None

    asyncio.run(call())


def test_a_used_up_rate_is_429_and_says_when_to_come_back():
    async def call() -> None:
        limiter = RateLimiter(Quotas(shop=1))
        await limiter.admit(SHOP)
        await limiter.admit(SHOP)

    with pytest.raises(Problem) as raised:
        asyncio.run(call())
    assert (raised.value.status, raised.value.kind) == (429, "rate-limited")
    assert raised.value.headers == {"Retry-After": "1"}
    assert "5/s" in raised.value.detail


def test_a_stream_is_slowed_down_and_gets_all_its_jobs_in_the_end():
    quotas = Quotas(shop=4)

    async def call() -> None:
        limiter = RateLimiter(quotas)
        pacing = asyncio.ensure_future(limiter.pace(SHOP, 6))
        await asyncio.sleep(0.06)
        assert not pacing.done()
        quotas.left["shop"] = 9
        await pacing

    asyncio.run(call())
    assert quotas.calls == [{"shop": 6}, {"shop": 2}]
    assert quotas.left["shop"] == 7


def test_the_answer_tells_the_limit_and_what_is_left_even_if_it_is_a_problem():
    limiter = RateLimiter(Quotas(shop=2))

    async def page(_: Request) -> Response:
        try:
            await limiter.admit(SHOP)
        except Problem as problem:
            return problem.response()
        return PlainTextResponse("")

    *answers, missing = get(Starlette(routes=[Route("/", page)]), "/", "/", "/", "/no-such-page")
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"jobs";q=5;w=1'}
    assert [answer.headers["ratelimit"] for answer in answers] == [f'"jobs";r={left};t=1' for left in (1, 0, 0)]
    assert "ratelimit" not in missing.headers


def test_requests_at_once_are_counted_until_their_answer_ends_however_it_ends():
    waiting, caller = RequestCounts(), Caller(name="shop", waiting=1)
    inside: list[int] = []

    async def page(request: Request) -> Response:
        waiting.enter(caller)
        waiting.enter(caller)  # a request counts once
        if request.url.path == "/fails":
            raise ValueError

        async def stream() -> AsyncIterator[str]:
            inside.append(waiting._requests["shop"])
            yield "x"

        return StreamingResponse(stream())

    paths = ("/", "/fails")
    answers = get(Starlette(routes=[Route(path, page) for path in paths]), *paths, *paths)
    assert [answer.status_code for answer in answers] == [200, 500] * 2
    assert inside == [1, 1]
    assert not waiting._requests


def test_a_request_too_many_is_503_and_other_callers_go_on():
    waiting = RequestCounts()
    entered, release = asyncio.Event(), asyncio.Event()

    async def call() -> list[Any]:
        async def page(name: str) -> None:
            async def app(_: Any, __: Any, ___: Any) -> None:
                waiting.enter(Caller(name=name, waiting=2))
                entered.set()
                await release.wait()

            await LimitsMiddleware(app)({"type": "http"}, None, None)  # type: ignore[arg-type]  # not used here

        first = [asyncio.ensure_future(page("shop")) for _ in range(2)]
        await entered.wait()
        third = await asyncio.gather(page("shop"), return_exceptions=True)
        other = asyncio.ensure_future(page("bank"))
        await asyncio.sleep(0)
        assert not other.done()
        release.set()
        await asyncio.gather(*first, other)
        await page("shop")
        return third

    (problem,) = asyncio.run(call())
    assert (problem.status, problem.kind, problem.headers) == (
        503,
        "too-many-waiting",
        {"Retry-After": "1"},
    )
    assert not waiting._requests
