"""Wait for outcomes in asyncio: one connection and one task for each client, however many jobs and callers.

The counterpart of `headrace.results.listener`; both carry out the decisions of `ListenerState`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from headrace.connection.future_deadlines import FutureDeadlines
from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.results.aio_expected import ExpectedOutcome
from headrace.results.listener_state import ListenerState, Step
from headrace.results.waiter import Waiter
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome

#: Seconds between two looks at the clock.
_TICK_SECONDS = 1.0
#: Seconds that closing waits for the end of the TLS session.
_CLOSE_SECONDS = 1.0
#: Replies that are read before the event loop runs other tasks.
_REPLIES_PER_ROUND = 100


class AsyncSubscription:
    """The jobs one caller waits for, as `headrace.results.listener.Subscription`. An async context manager."""

    def __init__(
        self, listener: AsyncOutcomeListener, jobs: Iterable[str], *, own: Iterable[str], fetch_stored: bool
    ) -> None:
        self.jobs = set(jobs)
        self.own = set(own)
        self.fetch_stored = fetch_stored
        self._listener = listener
        self._unconfirmed = set(self.jobs)
        self._ready = asyncio.Event()
        self._arrivals: asyncio.Queue[Mapping[str, Outcome] | HeadraceError] = asyncio.Queue()
        #: The remaining outcomes of the last arrival.
        self._remaining: Iterator[tuple[str, Outcome]] = iter(())

    async def next(self, timeout: float | None) -> tuple[str, Outcome] | None:  # noqa: ASYNC109  # as Subscription's
        """Wait for the next outcome and return it with the id of its job; None after `timeout` seconds.

        Raises BrokerUnavailable if Redis refuses the client.
        """
        for item in self._remaining:
            return item
        try:
            async with asyncio.timeout(timeout):
                arrival = await self._arrivals.get()
        except TimeoutError:
            return None
        if isinstance(arrival, HeadraceError):
            self._arrivals.put_nowait(arrival)
            raise arrival
        self._remaining = iter(arrival.items())
        return next(self._remaining)

    async def ready(self, timeout: float | None) -> bool:  # noqa: ASYNC109  # as Subscription's
        """Wait until no announcement can be missed. Return False if that takes more than `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await self._ready.wait()
        except TimeoutError:
            return False

    def on_subscribed(self, job: str) -> None:
        """Note that no announcement of the job can be missed from now on."""
        self._unconfirmed.discard(job)
        if not self._unconfirmed:
            self._ready.set()

    def on_outcomes(self, outcomes: Mapping[str, Outcome]) -> None:
        """Remove these jobs from `jobs` and queue their outcomes."""
        self.jobs.difference_update(outcomes)
        self._arrivals.put_nowait(outcomes)

    def on_error(self, error: HeadraceError) -> None:
        """Let the next call of `next` raise the error."""
        self._arrivals.put_nowait(error)
        self._ready.set()

    async def __aenter__(self) -> Self:
        self._listener.start(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.unsubscribe(self)


class AsyncOutcomeListener:
    """The subscriptions of one client, its connection for them, and the task that serves them."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, settings: Settings, reply_channel: str) -> None:
        self._client, self._settings = client, settings
        self._state = ListenerState(keys, settings, reply_channel)
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._send_lock = asyncio.Lock()
        self._deadlines = FutureDeadlines(lambda future: future.set_result(None))
        self._closed = False

    @property
    def error(self) -> BrokerUnavailable | None:
        """The reason why there is no connection at the moment; None if there is one."""
        return self._state.error

    @property
    def connection(self) -> Any:
        """The connection of redis-py; None if there is none at the moment."""
        return self._connection

    def subscribe(
        self, jobs: Iterable[str], *, own: Iterable[str] = (), fetch_stored: bool = True
    ) -> AsyncSubscription:
        """Return a subscription to enter. `own` are the jobs to receive on the reply channel: this client's own.

        Without `fetch_stored`, the jobs are submitted only once the subscription is ready.
        """
        return AsyncSubscription(self, jobs, own=own, fetch_stored=fetch_stored)

    def expect(self, job: str) -> ExpectedOutcome:
        """Return the outcome to expect of a job that this client is about to submit. To be entered."""
        return ExpectedOutcome(self, job, self._deadlines)

    @property
    def waiting(self) -> int:
        """The number of jobs that callers wait for."""
        return len(self._state.subscriptions)

    def create_future(self) -> asyncio.Future[Any]:
        """Return a new future of the running event loop."""
        return asyncio.get_running_loop().create_future()

    def start(self, subscription: Waiter) -> None:
        """Start to wait for the jobs of a subscription."""
        if not subscription.jobs:
            return
        if self._closed:
            raise HeadraceError("this client is closed")
        self._state.subscriptions.add(subscription)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="headrace-listener")
        self._start_sender()

    def unsubscribe(self, subscription: Waiter) -> None:
        """End a subscription, even if some of its jobs have no outcome yet."""
        if subscription.jobs:
            self._state.subscriptions.remove(subscription)
            self._start_sender()

    def _start_sender(self) -> None:
        # A task of its own: the caller may be cancelled while it sends commands for others too.
        if not self._state.subscriptions.has_work:
            return
        if self._connection is not None and (self._sender is None or self._sender.done()):
            self._sender = asyncio.create_task(self._send_subscriptions(), name="headrace-listener")

    async def close(self) -> None:
        """End the task. Waiting callers get a HeadraceError."""
        self._closed = True
        with suppress(TimeoutError, RedisError, OSError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._disconnect(nowait=False)
        self._state.subscriptions.fail(HeadraceError("the client was closed while this call waited"))
        # Repeated: in Python 3.11 a cancellation is lost if it meets a finished `wait_for`, such as redis-py's.
        for task in (self._task, self._sender):
            while task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0.1)
        await self._disconnect()
        self._deadlines.close()

    async def _send_subscriptions(self) -> None:
        if subscribe := self._state.next_subscribe():
            await self._send(*subscribe)
        if unsubscribe := self._state.next_unsubscribe():
            await self._send(*unsubscribe)

    async def _send(self, *command: str) -> None:
        """Send a command if there is a connection. If sending breaks it, the listener's task connects again."""
        # redis-py cannot send and disconnect at the same time.
        async with self._send_lock:
            connection = self._connection
            if connection is None or not connection.is_connected:
                return
            try:
                await connection.send_command(*command, check_health=False)
            except (RedisError, OSError):
                await connection.disconnect(nowait=True)

    async def _run(self) -> None:
        while not self._closed:
            try:
                if self._connection is None:
                    await self._connect()
                await self._serve()
            except Exception as error:  # noqa: BLE001  # no reply may end the listener: callers wait for it
                await self._disconnect()
                await asyncio.sleep(self._state.on_connection_lost(error))
            if not self._state.subscriptions:
                await self._disconnect()
                # A caller may have subscribed during the disconnect.
                if not self._state.subscriptions:
                    self._task = None
                    return

    async def _connect(self) -> None:
        pool = self._client.connection_pool
        options = pool.connection_kwargs | {
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": self._settings.command_timeout,
        }
        connection = pool.connection_class(**options)
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py gives it no types
        self._connection = connection
        self._state.on_connected(time.monotonic())

    async def _disconnect(self, *, nowait: bool = True) -> None:
        async with self._send_lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.disconnect(nowait=nowait)

    async def _serve(self) -> None:
        """Listen until no caller has waited for a while. Raises RedisError or OSError for a lost connection."""
        while not self._closed:
            await self._send_subscriptions()
            await self._fetch()
            received = await self._receive()
            step = self._state.next_step(time.monotonic(), received=received)
            if step is Step.STOP:
                return
            if step is Step.PING:
                await self._send("PING")

    async def _fetch(self) -> None:
        """Fetch outcomes that may have been stored before their subscription was confirmed."""
        if names := self._state.next_fetch():
            async with asyncio.timeout(self._settings.command_timeout):
                stored = await self._client.mget(names)
            self._state.handle(self._state.read_stored(names, stored))

    async def _receive(self) -> bool:
        """Wait for a reply, handle it and those behind it. Return False if none arrived within a tick."""
        connection = self._connection
        if not connection.is_connected:
            raise redis.ConnectionError("the connection was closed")
        # With a timeout, redis-py returns None if no reply arrives.
        reply = await connection.read_response(timeout=_TICK_SECONDS, disconnect_on_error=False)
        if reply is None:
            return False
        self._handle(reply)
        for _ in range(_REPLIES_PER_ROUND):
            if not await connection.can_read():
                return True
            self._handle(await connection.read_response(disconnect_on_error=False))
        # A buffered reply is read without a pause, so other tasks of the event loop get their turn here.
        await asyncio.sleep(0)
        return True

    def _handle(self, reply: list[Any]) -> None:
        self._state.handle(self._state.read_reply(reply))
