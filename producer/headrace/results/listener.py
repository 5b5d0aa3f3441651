"""Waiting for outcomes: one connection and one thread for each client, however many jobs and waiters.

Only the thread touches the connection; waiters leave word in `Subscriptions` and wake it through a pair of
sockets. It starts with the first waiter, ends when there has been none for a while, and survives a Redis
that restarts: it connects again, subscribes again, and looks at what was stored meanwhile.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from headrace.connection.errors import is_permanent, translate_error
from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.results.inbox import LOOK_AGAIN
from headrace.results.subscriptions import CHUNK, Subscriptions
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, decode_by_job, decode_lines

#: Seconds the thread stays when nobody waits.
LINGER = 10.0
#: Seconds of silence after which the connection is asked whether it is still there.
PING_AFTER = 5.0
#: Seconds between attempts to connect again, at first and at the most.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
#: How often the thread looks at the clock.
_TICK = 1.0


class Subscription:
    """The jobs one caller waits for. A context manager: leaving it ends the waiting."""

    #: They may have ended before.
    look = True

    def __init__(self, waiting: OutcomeListener, jobs: Iterable[str], *, own: Iterable[str]) -> None:
        self.jobs = set(jobs)
        self.own = set(own)
        self._waiting = waiting
        self._arrived: SimpleQueue[Mapping[str, Outcome] | HeadraceError] = SimpleQueue()
        #: What arrived together with the last one given.
        self._given: Iterator[tuple[str, Outcome]] = iter(())

    def next(self, timeout: float | None) -> tuple[str, Outcome] | None:
        """The next job to end, and its outcome; None when time is up. Raises BrokerUnavailable if refused."""
        for one in self._given:
            return one
        try:
            arrived = self._arrived.get(timeout=None if timeout is None else max(0.0, timeout))
        except Empty:
            return None
        if isinstance(arrived, HeadraceError):
            self._arrived.put(arrived)
            raise arrived
        self._given = iter(arrived.items())
        return next(self._given)

    def on_subscribed(self, job: str) -> None:
        """For `Subscriptions`, as are the two below."""

    def on_outcome(self, outcomes: Mapping[str, Outcome]) -> None:
        """So many jobs less to wait for."""
        self.jobs.difference_update(outcomes)
        self._arrived.put(outcomes)

    def on_error(self, error: HeadraceError) -> None:
        """Nothing more will arrive."""
        self._arrived.put(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waiting.leave(self)


class OutcomeListener:
    """What a client's waiters share."""

    def __init__(self, client: redis.Redis, keys: Keys, settings: Settings, inbox: str) -> None:
        self._client = client
        self._settings = settings
        self._channel = keys.result("")
        self._inbox = keys.reply_channel(inbox)
        self._connection: Any = None
        self._selector: selectors.BaseSelector | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._new()
        _ALL.add(self)

    def _new(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions = Subscriptions()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        #: Why the thread has no connection at the moment.
        self.error: BrokerUnavailable | None = None

    def subscribe(self, jobs: Iterable[str], *, own: Iterable[str] = ()) -> Subscription:
        """Begin to wait. `own` are those that this client submitted, of which its inbox is told."""
        watch = Subscription(self, jobs, own=own)
        if watch.jobs:
            with self._lock:
                if self._closed.is_set():
                    raise HeadraceError("this client is closed")
                self._subscriptions.add(watch)
                self._call_thread()
        return watch

    def leave(self, watch: Subscription) -> None:
        """End a watch, also one that is not through."""
        with self._lock:
            if watch.jobs and self._thread is not None:
                self._subscriptions.remove(watch)
                self._call_thread()

    def close(self) -> None:
        """End the thread. Those who wait get a HeadraceError."""
        self._closed.set()
        with self._lock:
            self._subscriptions.fail(HeadraceError("the client was closed while this waited"))
            thread = self._thread
            if thread is not None:
                self._call_thread()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=self._settings.connect_timeout)

    def after_fork(self) -> None:
        """In a child process: the thread stayed with the parent, and so does its connection."""
        self._disconnect()
        self._close_wake()
        self._new()

    def _call_thread(self) -> None:
        if self._thread is None:
            self._wake = socket.socketpair()
            for end in self._wake:
                end.setblocking(False)
            self._thread = threading.Thread(target=self._run, name="headrace-waiting", daemon=True)
            self._thread.start()
        elif self._wake is not None and (self._subscriptions.has_work or self._closed.is_set()):
            # A full pipe wakes as well as one byte more would.
            with suppress(BlockingIOError):
                self._wake[1].send(b"\0")

    # From here on: the thread.

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            try:
                if self._connection is None:
                    self._connect()
                pause = FIRST_PAUSE
                self._serve()
            except (RedisError, OSError) as error:
                self._disconnect()
                self._note(error)
                self._closed.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads reconnects, no secret
                pause = min(pause * 2, LONGEST_PAUSE)
            if self._is_over():
                break

    def _note(self, error: RedisError | OSError) -> None:
        broken = error if isinstance(error, RedisError) else redis.ConnectionError(str(error))
        with self._lock:
            self.error = translate_error(broken, self._settings)
            if is_permanent(broken):
                self._subscriptions.fail(self.error)

    def _is_over(self) -> bool:
        """End the thread if nobody waits. The next to wait starts another."""
        with self._lock:
            if self._subscriptions and not self._closed.is_set():
                return False
            self._thread = None
            self._disconnect()
            self._close_wake()
            return True

    def _connect(self) -> None:
        pool = self._client.connection_pool
        options = pool.connection_kwargs | {"retry": Retry(NoBackoff(), 0)}
        connection = pool.connection_class(**options)
        connection.connect()
        self._connection = connection
        # redis-py waits for one socket only; we need to wait for two.
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection._sock, selectors.EVENT_READ)  # noqa: SLF001  # as said above
        if self._wake is not None:
            self._selector.register(self._wake[0], selectors.EVENT_READ)
        with self._lock:
            self._subscriptions.start_over()
            self.error = None

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        selector, self._selector = self._selector, None
        if selector is not None:
            selector.close()
        if connection is not None:
            connection.disconnect()

    def _serve(self) -> None:
        """Listen until nobody has waited for a while. Leaves by an error when Redis is away."""
        heard = used = looked = time.monotonic()
        asked = False
        while not self._closed.is_set():
            heard_any = self._receive()
            if self._tidy():
                continue
            self._sleep()
            now = time.monotonic()
            if now - looked > LOOK_AGAIN:
                looked = now
                with self._lock:
                    self._subscriptions.inbox.look_again()
            if heard_any:
                heard, asked = now, False
            if self._subscriptions:
                used = now
            elif now - used > LINGER:
                return
            if asked and now - heard > PING_AFTER + self._settings.command_timeout:
                raise redis.TimeoutError("no answer to a PING")
            if not asked and now - heard > PING_AFTER:
                self._connection.send_command("PING", check_health=False)
                asked = True

    def _receive(self) -> bool:
        """Take what has arrived; not endlessly, for there are looks to be made too."""
        for taken in range(CHUNK):
            self._send_subscriptions()
            if not self._connection.can_read(0):
                return taken > 0
            self._take(self._connection.read_response())
        return True

    def _send_subscriptions(self) -> None:
        with self._lock:
            jobs = self._subscriptions.next_to_subscribe()
            inbox = self._subscriptions.inbox.is_to_be_subscribed()
        if inbox:
            self._connection.send_command("SUBSCRIBE", self._inbox, check_health=False)
        if jobs:
            self._connection.send_command("SUBSCRIBE", *map(self._name, jobs), check_health=False)

    def _name(self, job: str) -> str:
        return self._channel + job

    def _take(self, reply: list[Any]) -> None:
        match reply:
            case [b"message", bytes() as channel, bytes() as told] if channel.decode() == self._inbox:
                self._end({one.job: one for one in decode_lines(told)})
            case [b"subscribe", bytes() as channel, *_] if channel.decode() == self._inbox:
                with self._lock:
                    self._subscriptions.inbox.confirmed()
            case [b"subscribe", bytes() as channel, *_]:
                with self._lock:
                    self._subscriptions.on_subscribed(self._job(channel))
            case [b"message", bytes() as channel, bytes() as stored]:
                self._end(decode_by_job({self._job(channel): stored}))

    def _job(self, channel: bytes) -> str:
        return channel.decode().removeprefix(self._channel)

    def _end(self, outcomes: Mapping[str, Outcome]) -> None:
        with self._lock:
            self._subscriptions.on_outcome(outcomes)

    def _tidy(self) -> bool:
        """Look at what may be stored, and unsubscribe from what is through. True if there was any of it."""
        with self._lock:
            looks = self._subscriptions.next_to_look_at()
            through = self._subscriptions.next_to_unsubscribe()
        if through:
            self._connection.send_command("UNSUBSCRIBE", *map(self._name, through), check_health=False)
        if looks:
            found = self._client.mget([self._name(job) for job in looks])
            self._end(decode_by_job(dict(zip(looks, found, strict=True))))
        return bool(looks or through)

    def _sleep(self) -> None:
        """Until something arrives, somebody calls, or a tick is over."""
        wake, selector = self._wake, self._selector
        if wake is None or selector is None:
            return
        for key, _ in selector.select(_TICK):
            if key.fileobj is wake[0]:
                with suppress(BlockingIOError):
                    wake[0].recv(4096)

    def _close_wake(self) -> None:
        wake, self._wake = self._wake, None
        for end in wake or ():
            end.close()


_ALL: weakref.WeakSet[OutcomeListener] = weakref.WeakSet()


def _after_fork() -> None:
    for waiting in list(_ALL):
        waiting.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
