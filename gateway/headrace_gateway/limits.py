"""The limits of callers: jobs in a time, counted in Redis, and requests at once, counted in this process."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec
from redis.exceptions import RedisError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.catalog.callers import Rate
from headrace.catalog.rate import Grant, decode_grant, take_command
from headrace.connection.commands import Operation, Pipeline
from headrace.wire.keys import Keys
from headrace_gateway.callers import Caller
from headrace_gateway.problems import Problem
from headrace_gateway.under_way import RequestUnderWay, request_under_way

#: Seconds after which a caller with too many requests under way may try again.
_RETRY_WAITING = 1
#: By caller: its rate and the jobs it asks for; what it is granted.
Rates = Mapping[str, tuple[Rate, int]]
Grants = Mapping[str, Grant]


def take_rates(keys: Keys, rates: Rates) -> Operation[Grants]:
    """Ask for jobs of several callers with one pipeline. Raises redis.RedisError in the operation."""
    commands = tuple(take_command(keys, caller, rate, jobs) for caller, (rate, jobs) in rates.items())
    replies = yield Pipeline(commands)
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return {caller: decode_grant(reply) for caller, reply in zip(rates, replies, strict=True)}


class _PendingTake(msgspec.Struct, frozen=True, eq=False):
    """A request for jobs that waits for the next call."""

    caller: Caller
    jobs: int
    grant: asyncio.Future[Grant]


class RateLimiter:
    """Takes jobs from the rates of callers. What comes while one call is under way goes with the next."""

    def __init__(self, take: Callable[[Rates], Awaitable[Grants]]) -> None:
        self._take = take
        self._pending: list[_PendingTake] = []
        self._calls: asyncio.Task[None] | None = None

    async def take(self, caller: Caller, jobs: int = 1) -> Grant | None:
        """Return what a caller is granted of these jobs; None if it has no limit. Raises HeadraceError."""
        if caller.rate is None:
            return None
        pending = _PendingTake(caller, jobs, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        if self._calls is None or self._calls.done():
            self._calls = asyncio.create_task(self._call())
        grant = await pending.grant
        if (request := request_under_way.get()) is not None:
            request.grant = caller.rate, grant
        return grant

    async def admit(self, caller: Caller) -> None:
        """Take one job. Raises a Problem, 429, if the caller has used up its rate."""
        grant = await self.take(caller)
        if grant is not None and not grant.jobs:
            assert caller.rate is not None  # noqa: S101  # it was granted something of it
            raise Problem(
                429,
                "rate-limited",
                f"the rate of this key is {caller.rate} jobs, and it is used up; repeat the request after as many "
                "seconds as Retry-After says",
                headers={"Retry-After": str(_whole_seconds(grant.retry_after))},
            )

    async def pace(self, caller: Caller, jobs: int) -> None:
        """Wait until the caller has been granted these jobs, in parts. For streams, which slow down instead."""
        while jobs:
            grant = await self.take(caller, jobs)
            if grant is None:
                return
            jobs -= grant.jobs
            if jobs:
                await asyncio.sleep(max(grant.retry_after, 0.001))

    async def _call(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            jobs: dict[str, tuple[Rate, int]] = {}
            for pending in batch:
                assert pending.caller.rate is not None  # noqa: S101  # `take` asks for no other
                _, former = jobs.get(pending.caller.name, (None, 0))
                jobs[pending.caller.name] = (pending.caller.rate, former + pending.jobs)
            try:
                grants = await self._take(jobs)
            except Exception as error:  # noqa: BLE001  # it belongs to those who wait
                for pending in batch:
                    if not pending.grant.done():
                        pending.grant.set_exception(error)
            else:
                _share(batch, grants)


def _share(batch: list[_PendingTake], grants: Grants) -> None:
    """Give each request its part of what its caller was granted, in the order in which they came.

    What was granted to a request that has ended meanwhile is lost, as its job would be counted too.
    """
    unshared = {caller: grant.jobs for caller, grant in grants.items()}
    for pending in batch:
        grant, name = grants[pending.caller.name], pending.caller.name
        jobs = min(pending.jobs, unshared[name])
        unshared[name] -= jobs
        if not pending.grant.done():
            left = grant.left + unshared[name]
            pending.grant.set_result(msgspec.structs.replace(grant, jobs=jobs, left=left))


class RequestCounts:
    """Counts the requests of callers that are under way in this process."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()

    def enter(self, caller: Caller) -> None:
        """Count the request under way. Raises a Problem, 503, if the caller has too many."""
        request = request_under_way.get()
        if not caller.waiting or request is None or request.leave is not None:
            return
        if self._requests[caller.name] >= caller.waiting:
            raise Problem(
                503,
                "too-many-waiting",
                f"this key may have {caller.waiting} requests under way at once, and has; wait for one, or submit "
                "jobs and ask for their outcomes later",
                headers={"Retry-After": str(_RETRY_WAITING)},
            )
        self._requests[caller.name] += 1
        request.leave = partial(self._leave, caller.name)

    def _leave(self, name: str) -> None:
        self._requests[name] -= 1
        if not self._requests[name]:
            del self._requests[name]


class LimitsMiddleware:
    """Ends the count of a request with its answer, and tells the caller what is left of its rate."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = RequestUnderWay(scope, receive)
        token = request_under_way.set(request)

        def send_with_rate(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start" and request.grant is not None:
                _add_headers(MutableHeaders(scope=message), *request.grant)
            return send(message)

        try:
            await self._app(scope, receive, send_with_rate)
        finally:
            request_under_way.reset(token)
            if request.leave is not None:
                request.leave()


def _add_headers(headers: MutableHeaders, rate: Rate, grant: Grant) -> None:
    """Add the headers of draft-ietf-httpapi-ratelimit-headers: the limit, what is left, and when all is free."""
    headers["RateLimit-Policy"] = f'"jobs";q={rate.quota};w={rate.window}'
    headers["RateLimit"] = f'"jobs";r={grant.left};t={math.ceil(grant.reset)}'


def _whole_seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))


class CallerLimits:
    """The limits of the callers of one gateway: `rates` of jobs, and `requests` under way."""

    def __init__(self, take: Callable[[Rates], Awaitable[Grants]]) -> None:
        self.rates, self.requests = RateLimiter(take), RequestCounts()
