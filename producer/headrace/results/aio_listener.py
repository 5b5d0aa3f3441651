"""Waiting for outcomes in asyncio: one connection and one task for each client.

The counterpart of `headrace.results.listener`; who waits for what is kept by the same `Subscriptions`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from headrace.connection.errors import is_permanent, translate_error
from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.results.inbox import LOOK_AGAIN
from headrace.results.listener import FIRST_PAUSE, LINGER, LONGEST_PAUSE, PING_AFTER
from headrace.results.subscriptions import Subscriptions
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, decode_by_job, decode_lines

#: How often the task looks at the clock.
_TICK = 1.0
#: Replies taken before the rest of the loop has its turn.
_AT_A_TIME = 100


class AsyncSubscription:
    """The jobs one caller waits for, as `headrace.results.listener.Watch`. An async context manager."""

    def __init__(
        self, waiting: AsyncOutcomeListener, jobs: Iterable[str], *, look: bool, own: Iterable[str]
    ) -> None:
        self.jobs = set(jobs)
        self.own = set(own)
        self.look = look
        self._waiting = waiting
        self._unconfirmed = set(self.jobs)
        self._ready = asyncio.Event()
        self._arrived: asyncio.Queue[Mapping[str, Outcome] | HeadraceError] = asyncio.Queue()
        self._given: Iterator[tuple[str, Outcome]] = iter(())

    async def next(self, timeout: float | None) -> tuple[str, Outcome] | None:  # noqa: ASYNC109  # as Watch's
        """The next job to end, and its outcome; None when time is up. Raises BrokerUnavailable if refused."""
        for one in self._given:
            return one
        try:
            async with asyncio.timeout(timeout):
                arrived = await self._arrived.get()
        except TimeoutError:
            return None
        if isinstance(arrived, HeadraceError):
            self._arrived.put_nowait(arrived)
            raise arrived
        self._given = iter(arrived.items())
        return next(self._given)

    async def ready(self, timeout: float | None) -> bool:  # noqa: ASYNC109  # as Watch's
        """Wait until no announcement can be missed; False when time is up."""
        try:
            async with asyncio.timeout(timeout):
                return await self._ready.wait()
        except TimeoutError:
            return False

    def on_subscribed(self, job: str) -> None:
        """For `Subscriptions`, as are the two below."""
        self._unconfirmed.discard(job)
        if not self._unconfirmed:
            self._ready.set()

    def on_outcome(self, outcomes: Mapping[str, Outcome]) -> None:
        """So many jobs less to wait for."""
        self.jobs.difference_update(outcomes)
        self._arrived.put_nowait(outcomes)

    def on_error(self, error: HeadraceError) -> None:
        """Nothing more will arrive."""
        self._arrived.put_nowait(error)
        self._ready.set()

    async def __aenter__(self) -> Self:
        self._waiting.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waiting.leave(self)


class AsyncOutcomeListener:
    """What a client's waiters share."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, settings: Settings, inbox: str) -> None:
        self._client = client
        self._settings = settings
        self._channel = keys.result("")
        self._inbox = keys.reply_channel(inbox)
        self._subscriptions = Subscriptions()
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._closed = False
        #: Why the task has no connection at the moment.
        self.error: BrokerUnavailable | None = None

    def subscribe(self, jobs: Iterable[str], *, look: bool = True, own: Iterable[str] = ()) -> AsyncSubscription:
        """A watch, to be entered. Without `look`, the jobs are submitted only once the watch is ready.

        `own` are those that this client submitted, of which its inbox is told.
        """
        return AsyncSubscription(self, jobs, look=look, own=own)

    def enter(self, watch: AsyncSubscription) -> None:
        """Begin to wait."""
        if not watch.jobs:
            return
        if self._closed:
            raise HeadraceError("this client is closed")
        self._subscriptions.add(watch)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="headrace-waiting")
        self._call_sender()

    def leave(self, watch: AsyncSubscription) -> None:
        """End a watch, also one that is not through."""
        if watch.jobs:
            self._subscriptions.remove(watch)
            self._call_sender()

    def _call_sender(self) -> None:
        # A task of its own: a waiter may be cancelled while it sends for others too.
        if self._connection is not None and (self._sender is None or self._sender.done()):
            self._sender = asyncio.create_task(self._send(), name="headrace-waiting")

    async def close(self) -> None:
        """End the task. Those who wait get a HeadraceError."""
        self._closed = True
        self._subscriptions.fail(HeadraceError("the client was closed while this waited"))
        # More than once: in Python 3.11 a cancellation that meets a finished `wait_for`, as redis-py's, is lost.
        for task in (self._task, self._sender):
            while task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0.1)
        await self._disconnect()

    async def _send(self) -> None:
        """Subscribe and unsubscribe as is due."""
        if self._subscriptions.inbox.is_to_be_subscribed():
            await self._command("SUBSCRIBE", self._inbox)
        if jobs := self._subscriptions.next_to_subscribe():
            await self._command("SUBSCRIBE", *map(self._name, jobs))
        if jobs := self._subscriptions.next_to_unsubscribe():
            await self._command("UNSUBSCRIBE", *map(self._name, jobs))

    async def _command(self, *words: str) -> None:
        """Send a command, if there is a connection. One that breaks here is mended by the task."""
        # redis-py must not be told to send and to disconnect at once.
        async with self._sending:
            connection = self._connection
            if connection is None or not connection.is_connected:
                return
            try:
                await connection.send_command(*words, check_health=False)
            except (RedisError, OSError):
                await connection.disconnect(nowait=True)

    def _name(self, job: str) -> str:
        return self._channel + job

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed:
            try:
                if self._connection is None:
                    await self._connect()
                pause = FIRST_PAUSE
                await self._serve()
            except (RedisError, OSError) as error:
                await self._disconnect()
                self._note(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads reconnects, no secret
                pause = min(pause * 2, LONGEST_PAUSE)
            if not self._subscriptions:
                await self._disconnect()
                # Somebody may have come meanwhile.
                if not self._subscriptions:
                    self._task = None
                    return

    def _note(self, error: RedisError | OSError) -> None:
        broken = error if isinstance(error, RedisError) else redis.ConnectionError(str(error))
        self.error = translate_error(broken, self._settings)
        if is_permanent(broken):
            self._subscriptions.fail(self.error)

    async def _connect(self) -> None:
        pool = self._client.connection_pool
        options = pool.connection_kwargs | {"retry": Retry(NoBackoff(), 0)}
        connection = pool.connection_class(**options)
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py gives it no types
        self._connection = connection
        self._subscriptions.start_over()
        self.error = None

    async def _disconnect(self) -> None:
        async with self._sending:
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.disconnect(nowait=True)

    async def _serve(self) -> None:
        """Listen until nobody has waited for a while. Leaves by an error when Redis is away."""
        heard = used = looked = time.monotonic()
        asked = False
        while not self._closed:
            await self._send()
            await self._look()
            now = time.monotonic()
            if now - looked > LOOK_AGAIN:
                looked = now
                self._subscriptions.inbox.look_again()
            if await self._receive():
                heard, asked = now, False
                continue
            if self._subscriptions:
                used = now
            elif now - used > LINGER:
                return
            if asked and now - heard > PING_AFTER + self._settings.command_timeout:
                raise redis.TimeoutError("no answer to a PING")
            if not asked and now - heard > PING_AFTER:
                await self._command("PING")
                asked = True

    async def _receive(self) -> bool:
        """Wait for a reply and take it, and some more of those that are there; False when a tick is over."""
        connection = self._connection
        if not connection.is_connected:
            raise redis.ConnectionError("the connection was closed")
        # redis-py returns None for a read that took too long, if it was told how long it may take.
        reply = await connection.read_response(timeout=_TICK, disconnect_on_error=False)
        if reply is None:
            return False
        self._take(reply)
        for _ in range(_AT_A_TIME):
            if not await connection.can_read():
                return True
            self._take(await connection.read_response(disconnect_on_error=False))
        # Replies that are there are read without a pause; others on the loop want their turn.
        await asyncio.sleep(0)
        return True

    def _take(self, reply: list[Any]) -> None:
        match reply:
            case [b"message", bytes() as channel, bytes() as told] if channel.decode() == self._inbox:
                self._subscriptions.on_outcome({one.job: one for one in decode_lines(told)})
            case [b"subscribe", bytes() as channel, *_] if channel.decode() == self._inbox:
                self._subscriptions.inbox.confirmed()
            case [b"subscribe", bytes() as channel, *_]:
                self._subscriptions.on_subscribed(self._job(channel))
            case [b"message", bytes() as channel, bytes() as stored]:
                self._subscriptions.on_outcome(decode_by_job({self._job(channel): stored}))

    def _job(self, channel: bytes) -> str:
        return channel.decode().removeprefix(self._channel)

    async def _look(self) -> None:
        """Take what was stored before its subscription held."""
        if looks := self._subscriptions.next_to_look_at():
            found = await self._client.mget([self._name(job) for job in looks])
            self._subscriptions.on_outcome(decode_by_job(dict(zip(looks, found, strict=True))))
