"""Deliver notices: claim those that are due, post each to its endpoint, and record what became of it.

    claimed ──> posted ──> 2xx: finished
                      │──> otherwise: postponed, at the end a dead letter

A process that is killed at any step leaves notices claimed, which are due again when the claim ends. So an
endpoint may hear of a notice twice, by the same id, and never not at all.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import aiohttp
import msgspec
from redis.exceptions import RedisError

from headrace.errors import StoredDataError
from headrace.results.notice_scripts import EndpointError
from headrace.wire.attempts import REQUEUED, Attempt, add_requeue
from headrace.wire.dead_letter import DeadLetter, malformed_letter
from headrace.wire.notice import NOTICE_QUEUE, Notice, decode_notice
from headrace.wire.outcome import Reason
from headrace_gateway.notify.endpoints import Endpoint, EndpointFile
from headrace_gateway.notify.health import NotifierHealth
from headrace_gateway.notify.metrics import NotifyMetrics
from headrace_gateway.notify.payload import encode_payload
from headrace_gateway.notify.requests import open_session, post
from headrace_gateway.notify.schedule import Answer, Decision, decide, parse_schedule
from headrace_gateway.notify.settings import NotifySettings
from headrace_gateway.notify.signature import sign
from headrace_gateway.notify.storage import NoticeStore

log = logging.getLogger("headrace.notify")

#: Seconds between two looks for notices while none is due, and after Redis did not answer.
_POLL, _PAUSE = 0.25, 1.0
#: Seconds after which a notice is looked at again that found its endpoint busy with others.
_BUSY_DELAY = 2.0
#: The share of the requests at once that an endpoint may take while it answers, and after its last one failed.
_SHARE, _FAILING_SHARE = 0.75, 0.125


class ClaimTime(msgspec.Struct, frozen=True):
    """The moment of a claim."""

    #: Unix milliseconds of the server's clock, and the moment of its reading by this machine's monotonic clock.
    now_ms: int
    read_at: float

    def server_ms(self, monotonic: float) -> int:
        """Return the server's unix milliseconds at a moment of the monotonic clock."""
        return self.now_ms + int(1000 * (monotonic - self.read_at))


class Deliverer:
    """Delivers the notices of one installation, until `stop`."""

    def __init__(
        self,
        settings: NotifySettings,
        endpoints: EndpointFile,
        store: NoticeStore,
        metrics: NotifyMetrics,
        health: NotifierHealth,
    ) -> None:
        self._settings, self._endpoints, self._store = settings, endpoints, store
        self._metrics, self._health = metrics, health
        self._schedule = parse_schedule(settings.notify_schedule)
        self._host = socket.gethostname()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        #: Requests under way by endpoint, the endpoints whose last request failed, and until when (by the
        #: monotonic clock) an endpoint asked for a rest.
        self._busy: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._rests: dict[str, float] = {}

    def stop(self) -> None:
        """Claim no more. `run` returns when the requests under way have ended."""
        self._stopping.set()
        self._health.note_problem("the notifier stops")

    async def run(self) -> None:
        """Deliver until `stop`."""
        async with open_session(
            timeout=self._settings.notify_timeout, connections=self._settings.notify_concurrency
        ) as session:
            while not self._stopping.is_set():
                self._health.note_look()
                free = self._settings.notify_concurrency - len(self._tasks)
                if free <= 0:
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                    continue
                if await self._claim(session, free) < free:
                    await self._sleep(_POLL)
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _claim(self, session: aiohttp.ClientSession, free: int) -> int:
        """Claim notices and start to deliver them. Return their number."""
        try:
            claimed = await self._store.take(free)
        except RedisError as error:
            log.warning("Redis does not answer (%s); notices wait until it does", error)
            self._note_problem("the notifier waits for Redis, which does not answer")
            await self._sleep(_PAUSE)
            return 0
        self._note_problem(None)
        read_at = time.monotonic()
        for name, stored in claimed.notices:
            self._start(self._handle(session, name, stored, ClaimTime(claimed.now_ms, read_at)))
            await asyncio.sleep(0)  # the next one sees whether this one takes a request
        return len(claimed.notices)

    def _note_problem(self, problem: str | None) -> None:
        """Note what the last look for notices says of the health, unless the notifier stops."""
        if not self._stopping.is_set():
            self._health.note_problem(problem)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a notice could not be handled; it is due again when its claim ends", exc_info=error)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _handle(self, session: aiohttp.ClientSession, name: str, stored: bytes, claimed: ClaimTime) -> None:
        """Deliver a notice, unless nobody wants it or its endpoint has a rest."""
        try:
            notice = decode_notice(name, stored)
        except StoredDataError as error:
            await self._bury_malformed(name, stored, error)
            return
        endpoints = self._endpoints.current()
        endpoint = endpoints.get(notice.endpoint)
        if endpoint is None:
            await self._bury(notice, "unknown-endpoint", "permanent", "is in no file of endpoints", None)
            return
        if notice.content.status not in endpoint.events:
            await self._store.finish(name, stored)
            return
        delay = self._delay_before(notice.endpoint, len(endpoints))
        if delay > 0:
            await self._store.postpone(notice, stored, delay=delay, error=None)
            return
        self._busy[notice.endpoint] += 1
        try:
            await self._deliver(session, notice, endpoint, claimed)
        finally:
            self._busy[notice.endpoint] -= 1

    def _delay_before(self, name: str, endpoint_count: int) -> float:
        """Return the seconds before an endpoint takes another request, 0 if it does so now."""
        rest = self._rests.get(name, 0.0) - time.monotonic()
        if rest > 0:
            return rest * random.uniform(1.0, 1.2)  # noqa: S311  # spreads requests, no secret
        limit = allowed_requests(
            self._settings.notify_concurrency, endpoint_count=endpoint_count, failing=name in self._failing
        )
        return 0.0 if self._busy[name] < limit else _BUSY_DELAY * random.uniform(0.5, 1.5)  # noqa: S311  # as above

    async def _deliver(
        self, session: aiohttp.ClientSession, notice: Notice, endpoint: Endpoint, claimed: ClaimTime
    ) -> None:
        try:
            outcome = await self._store.read_outcome(notice.content.job)
        except RedisError as error:
            log.warning("the outcome of a job cannot be read (%s); its notice is due again later", error)
            return
        body = encode_payload(notice, outcome, full=endpoint.full)
        timestamp = claimed.server_ms(time.monotonic()) // 1000
        headers = {
            **endpoint.headers,
            "Content-Type": "application/json",
            "User-Agent": "headrace-notify",
            **sign(notice.id, timestamp, body, endpoint.keys),
        }
        started = time.monotonic()
        answer = await post(session, endpoint.url, headers, body)
        answered_at = time.monotonic()
        self._metrics.observe(notice.endpoint, answer, answered_at - started)
        self._note(notice.endpoint, answer)
        now_ms = claimed.server_ms(answered_at)
        decision = decide(notice, answer, now_ms=now_ms, schedule=self._schedule)
        await self._record(notice, answer, decision, now_ms)

    def _note(self, name: str, answer: Answer) -> None:
        """Remember whether an endpoint answers, and log when that changes."""
        if answer.is_success and name in self._failing:
            self._failing.discard(name)
            log.info("endpoint %s answers again", name, extra={"endpoint": name})
        elif not answer.is_success and name not in self._failing:
            self._failing.add(name)
            log.warning(
                "endpoint %s did not take a notice (%s); it is posted again later",
                name,
                answer.cause,
                extra={"endpoint": name},
            )

    async def _record(self, notice: Notice, answer: Answer, decision: Decision, now_ms: int) -> None:
        error = EndpointError(error=answer.cause, at_ms=now_ms)
        cause = f"error:{answer.cause}" if decision.counts else REQUEUED
        attempt = Attempt(cause=cause, owner=self._host, at_ms=now_ms, claim_size=1)
        attempts = (*notice.attempts, attempt) if decision.counts else add_requeue(notice.attempts, attempt)
        if decision.rests:
            self._rests[notice.endpoint] = time.monotonic() + decision.delay
        match decision.kind:
            case "done":
                await self._store.finish(notice.id, notice.stored)
            case "again":
                await self._store.postpone(
                    notice, notice.with_attempts(attempts), delay=decision.delay, error=error
                )
            case "dead":
                notice = msgspec.structs.replace(notice, attempts=attempts)
                reason: Reason = "permanent" if answer.status == 410 else "attempts exhausted"
                await self._bury(notice, answer.cause, reason, "took no request", error)

    async def _bury(
        self, notice: Notice, cause: str, reason: Reason, problem: str, error: EndpointError | None
    ) -> None:
        content = notice.content
        letter = DeadLetter(
            id=notice.id,
            job=content.job,
            queue=NOTICE_QUEUE,
            reason=reason,
            error=cause,
            module="headrace.notify",
            message=f"endpoint {notice.endpoint} {problem}: job {content.job} of {content.record.model} "
            f"ended with {content.status}",
            worker=self._host,
            attempts=notice.attempts,
            metadata=content.record.metadata,
        )
        if await self._store.bury(
            notice.id, notice.stored, letter, notice.message, endpoint=notice.endpoint, error=error
        ):
            self._metrics.count_dead(notice.endpoint if error is not None else "")
            log.warning(
                "the notice %s is a dead letter (%s); see `headrace dead show %s`",
                notice.id,
                cause,
                notice.id,
                extra={"endpoint": notice.endpoint, "job": content.job},
            )

    async def _bury_malformed(self, name: str, stored: bytes, error: StoredDataError) -> None:
        letter = malformed_letter(stored, error, queue=NOTICE_QUEUE, worker=self._host)
        if await self._store.bury(name, stored, letter, stored):
            self._metrics.count_dead("")
            log.warning("a notice cannot be read and is a dead letter: %s", error)


def allowed_requests(concurrency: int, *, endpoint_count: int, failing: bool) -> int:
    """Return the requests that one of some endpoints may take at once, of `concurrency` for all.

    An endpoint that does not answer holds its requests until their time is over. So it may take only a few, and
    others find room.
    """
    if endpoint_count <= 1:
        return concurrency
    return max(1, int(concurrency * (_FAILING_SHARE if failing else _SHARE)))
