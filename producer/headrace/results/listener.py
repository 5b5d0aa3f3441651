"""Wait for outcomes in threads: one connection and one thread for each client, however many jobs and callers.

Only the listener's thread uses the connection. Callers change the subscriptions and wake the thread through a pair
of sockets. The thread starts with the first subscription and ends when no caller has waited for a while. After a
restart of Redis it connects and subscribes again, and fetches the outcomes that were stored in between.
"""

from __future__ import annotations

import os
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
from redis.retry import Retry

from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.results.listener_state import ListenerState, Step
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome

#: Seconds between two looks at the clock.
_TICK_SECONDS = 1.0
#: Seconds that `close` waits for the thread.
_CLOSE_SECONDS = 1.0
#: Replies that are read before subscriptions end and stored outcomes are fetched.
_REPLIES_PER_ROUND = 1000


class Subscription:
    """The jobs one caller waits for. A context manager: the wait ends with the block."""

    fetch_stored = True

    def __init__(self, listener: OutcomeListener, jobs: Iterable[str], *, own: Iterable[str]) -> None:
        self.jobs = set(jobs)
        self.own = set(own)
        self._listener = listener
        self._arrivals: SimpleQueue[Mapping[str, Outcome] | HeadraceError] = SimpleQueue()
        #: The remaining outcomes of the last arrival.
        self._remaining: Iterator[tuple[str, Outcome]] = iter(())

    def next(self, timeout: float | None) -> tuple[str, Outcome] | None:
        """Wait for the next outcome and return it with the id of its job; None after `timeout` seconds.

        Raises BrokerUnavailable if Redis refuses the client.
        """
        for item in self._remaining:
            return item
        try:
            arrival = self._arrivals.get(timeout=None if timeout is None else max(0.0, timeout))
        except Empty:
            return None
        if isinstance(arrival, HeadraceError):
            self._arrivals.put(arrival)
            raise arrival
        self._remaining = iter(arrival.items())
        return next(self._remaining)

    def on_subscribed(self, job: str) -> None:
        """Do nothing: no caller waits until its jobs are subscribed to."""

    def on_outcomes(self, outcomes: Mapping[str, Outcome]) -> None:
        """Remove these jobs from `jobs` and queue their outcomes."""
        self.jobs.difference_update(outcomes)
        self._arrivals.put(outcomes)

    def on_error(self, error: HeadraceError) -> None:
        """Let the next call of `next` raise the error."""
        self._arrivals.put(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.unsubscribe(self)


class OutcomeListener:
    """The subscriptions of one client, its connection for them, and the thread that serves them."""

    def __init__(self, client: redis.Redis, keys: Keys, settings: Settings, reply_channel: str) -> None:
        self._client = client
        self._settings = settings
        self._state_arguments = keys, settings, reply_channel
        self._connection: Any = None
        self._selector: selectors.BaseSelector | None = None
        self._wake_sockets: tuple[socket.socket, socket.socket] | None = None
        self._reset()
        _ALL.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._state = ListenerState(*self._state_arguments)
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def error(self) -> BrokerUnavailable | None:
        """The reason why there is no connection at the moment; None if there is one."""
        return self._state.error

    def subscribe(self, jobs: Iterable[str], *, own: Iterable[str] = ()) -> Subscription:
        """Start to wait for jobs. `own` are those to receive on the reply channel: this client submitted them."""
        subscription = Subscription(self, jobs, own=own)
        if subscription.jobs:
            with self._lock:
                if self._closed.is_set():
                    raise HeadraceError("this client is closed")
                self._state.subscriptions.add(subscription)
                self._wake_thread()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription, even if some of its jobs have no outcome yet."""
        with self._lock:
            if subscription.jobs and self._thread is not None:
                self._state.subscriptions.remove(subscription)
                self._wake_thread()

    def close(self) -> None:
        """End the thread. Waiting callers get a HeadraceError."""
        self._closed.set()
        with self._lock:
            self._state.subscriptions.fail(HeadraceError("the client was closed while this call waited"))
            thread = self._thread
            if thread is not None:
                self._wake_thread()
        if thread is None or thread is threading.current_thread():
            return
        if not thread.is_alive():  # Ctrl-C interrupted its start: it will find the client closed, and do nothing
            self._close_wake_sockets()
        else:  # one that waits for a silent Redis ends by itself, later
            thread.join(timeout=min(_CLOSE_SECONDS, self._settings.connect_timeout))

    def after_fork(self) -> None:
        """Start over in a child process: the thread and the use of its connection remain in the parent."""
        self._disconnect()
        self._close_wake_sockets()
        self._reset()

    def _wake_thread(self) -> None:
        if self._thread is None:
            self._wake_sockets = socket.socketpair()
            for end in self._wake_sockets:
                end.setblocking(False)
            self._thread = threading.Thread(target=self._run, name="headrace-listener", daemon=True)
            self._thread.start()
        elif self._wake_sockets is not None and (self._state.subscriptions.has_work or self._closed.is_set()):
            # A full buffer wakes the thread as well as one more byte.
            with suppress(BlockingIOError):
                self._wake_sockets[1].send(b"\0")

    # The methods below run in the listener's thread.

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                if self._connection is None:
                    self._connect()
                self._serve()
            except Exception as error:  # noqa: BLE001  # no reply may end the listener: callers wait for it
                self._disconnect()
                with self._lock:
                    pause = self._state.on_connection_lost(error)
                self._closed.wait(pause)
            if self._end_if_unused():
                break

    def _end_if_unused(self) -> bool:
        """End the thread if no caller waits. The next subscription starts another."""
        with self._lock:
            if self._state.subscriptions and not self._closed.is_set():
                return False
            self._thread = None
            self._disconnect()
            self._close_wake_sockets()
            return True

    def _connect(self) -> None:
        pool = self._client.connection_pool
        options = pool.connection_kwargs | {"retry": Retry(NoBackoff(), 0)}
        connection = pool.connection_class(**options)
        connection.connect()
        self._connection = connection
        # redis-py can wait for one socket only; the thread waits for two.
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection._sock, selectors.EVENT_READ)  # noqa: SLF001  # as above
        if self._wake_sockets is not None:
            self._selector.register(self._wake_sockets[0], selectors.EVENT_READ)
        with self._lock:
            self._state.on_connected(time.monotonic())

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        selector, self._selector = self._selector, None
        if selector is not None:
            selector.close()
        if connection is not None:
            connection.disconnect()

    def _serve(self) -> None:
        """Listen until no caller has waited for a while. Raises RedisError or OSError for a lost connection."""
        while not self._closed.is_set():
            received = self._receive()
            if not self._unsubscribe_and_fetch():
                self._wait()
            with self._lock:
                step = self._state.next_step(time.monotonic(), received=received)
            if step is Step.STOP:
                return
            if step is Step.PING:
                self._send("PING")

    def _send(self, *command: str) -> None:
        self._connection.send_command(*command, check_health=False)

    def _receive(self) -> bool:
        """Subscribe, and handle replies until none is left or the round is over. Return True if there was one."""
        for count in range(_REPLIES_PER_ROUND):
            with self._lock:
                subscribe = self._state.next_subscribe()
            if subscribe:
                self._send(*subscribe)
            if not self._connection.can_read(0):
                return count > 0
            event = self._state.read_reply(self._connection.read_response())
            with self._lock:
                self._state.handle(event)
        return True

    def _unsubscribe_and_fetch(self) -> bool:
        """Unsubscribe from finished jobs and fetch stored outcomes. Return True if there was work."""
        with self._lock:
            names = self._state.next_fetch()
            unsubscribe = self._state.next_unsubscribe()
        if unsubscribe:
            self._send(*unsubscribe)
        if names:
            event = self._state.read_stored(names, self._client.mget(names))
            with self._lock:
                self._state.handle(event)
        return bool(names or unsubscribe)

    def _wait(self) -> None:
        """Wait until a reply arrives, a caller wakes the thread, or a tick is over."""
        sockets, selector = self._wake_sockets, self._selector
        if sockets is None or selector is None:
            return
        for key, _ in selector.select(_TICK_SECONDS):
            if key.fileobj is sockets[0]:
                with suppress(BlockingIOError):
                    sockets[0].recv(4096)

    def _close_wake_sockets(self) -> None:
        sockets, self._wake_sockets = self._wake_sockets, None
        for end in sockets or ():
            end.close()


_ALL: weakref.WeakSet[OutcomeListener] = weakref.WeakSet()


def _after_fork() -> None:
    for listener in list(_ALL):
        listener.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
