"""The quickest way to one job's outcome: the thread that predicts subscribes to a reply channel itself.

    predict ─> open ─> submit ─> receive ─> outcome
                                   └─ not soon, or the connection is lost: wait on the outcome listener

The listener's thread serves thousands of waiting callers over one connection. For one job that finishes soon, the
switch from that thread to the caller takes longer than everything else that a client does.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from headrace.clock import Deadline
from headrace.connection.call_limit import limit_call
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, decode_lines

#: Idle subscribers that are kept for the next predictions.
_MAX_IDLE = 32


class DirectSubscriber:
    """A connection that is subscribed to a reply channel of its own. One thread uses it at a time."""

    def __init__(self, client: redis.Redis, keys: Keys, settings: Settings) -> None:
        self.reply_channel = uuid.uuid4().hex
        self._client, self._settings = client, settings
        self._channel = keys.reply_channel(self.reply_channel)
        self._connection: Any = None
        #: True if the last wait received nothing: the connection may be lost without an error.
        self._is_suspect = False

    def open(self, deadline: Deadline) -> bool:
        """Subscribe in half of the remaining time. Return False if Redis is unreachable or refuses.

        The other half is for the submit, and for the wait on the outcome listener.
        """
        try:
            with limit_call(deadline.remaining_or(2 * self._settings.connect_timeout) / 2):
                if self._connection is None:
                    self._connect()
                elif self._is_suspect:
                    self._connection.send_command("PING", check_health=False)
        except (RedisError, OSError):
            self.close()
            return False
        return True

    def _connect(self) -> None:
        pool = self._client.connection_pool
        self._connection = pool.connection_class(**pool.connection_kwargs | {"retry": Retry(NoBackoff(), 0)})
        self._connection.connect()
        self._connection.send_command("SUBSCRIBE", self._channel, check_health=False)
        self._connection.read_response()

    def receive(self, job: str, seconds: float) -> Outcome | None:
        """Wait for the outcome of a job, `seconds` at most; None if it does not arrive.

        Outcomes of other jobs are of predictions that did not wait long enough; they are ignored.
        """
        connection, end, answered = self._connection, time.monotonic() + seconds, False
        try:
            while (remaining := end - time.monotonic()) > 0:
                with limit_call(remaining):
                    reply = connection.read_response(timeout=remaining, disconnect_on_error=False)
                answered = True
                for outcome in decode_lines(reply[2]) if reply[0] == b"message" else ():
                    if outcome.job == job:
                        self._is_suspect = False
                        return outcome
        except redis.TimeoutError:
            pass
        except (RedisError, OSError):
            self.close()
            return None
        if self._is_suspect and not answered:  # not even the PING
            self.close()
        self._is_suspect = True
        return None

    def close(self) -> None:
        """Close the connection. The next `open` connects again."""
        connection, self._connection, self._is_suspect = self._connection, None, False
        if connection is not None:
            with suppress(RedisError, OSError):
                connection.disconnect()


class DirectSubscriberPool:
    """The direct subscribers of a client. Safe for threads, and after fork."""

    def __init__(self, client: redis.Redis, keys: Keys, settings: Settings) -> None:
        self._subscriber_arguments = client, keys, settings
        self._idle: deque[DirectSubscriber] = deque(maxlen=_MAX_IDLE)
        self._pid = os.getpid()

    @contextmanager
    def acquire(self) -> Iterator[DirectSubscriber]:
        """Lend a subscriber to this thread for the time of the block."""
        if self._pid != os.getpid():  # these connections belong to the parent process
            self.close()
            self._pid = os.getpid()
        try:
            subscriber = self._idle.pop()  # the last one used: its memory is warm
        except IndexError:
            subscriber = DirectSubscriber(*self._subscriber_arguments)
        try:
            yield subscriber
        finally:
            if len(self._idle) < _MAX_IDLE:
                self._idle.append(subscriber)
            else:
                subscriber.close()

    def close(self) -> None:
        """Close the idle subscribers."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()
