"""The quick way to one job's outcome: who predicts listens to Redis itself, with no other thread between.

    predict ─> open ─> submit ─> hear ─> outcome
                                   └─ not soon, or the line is cut: wait as for any job

The waiting thread (`waiting`) tells thousands of waiters over one connection. For one job that is soon done, to be
told by another thread takes longer than all else that a client does.
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

from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, decode_lines

#: Lines that are kept for who predicts next: as many as threads predict at once, up to here.
_KEPT = 32


class DirectSubscriber:
    """A connection that listens to an inbox of its own. One thread uses it at a time."""

    def __init__(self, client: redis.Redis, keys: Keys, settings: Settings) -> None:
        self.reply_channel = uuid.uuid4().hex
        self._client, self._settings = client, settings
        self._channel = keys.reply_channel(self.reply_channel)
        self._connection: Any = None
        #: Nothing was heard the last time: the connection may have been lost without a word.
        self._doubted = False

    def open(self, within: float | None) -> bool:
        """Listen from now on, within so many seconds; False where Redis lets us not, or is away."""
        try:
            if self._connection is None:
                self._connect(within)
            elif self._doubted:
                self._connection.send_command("PING", check_health=False)
        except (RedisError, OSError):
            self.close()
            return False
        return True

    def _connect(self, within: float | None) -> None:
        settings, pool = self._settings, self._client.connection_pool
        most = settings.connect_timeout if within is None else min(settings.connect_timeout, max(within, 0.001))
        options = {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": most, "socket_timeout": most}
        self._connection = pool.connection_class(**pool.connection_kwargs | options)
        self._connection.connect()
        self._connection.send_command("SUBSCRIBE", self._channel, check_health=False)
        self._connection.read_response()

    def receive(self, job: str, seconds: float) -> Outcome | None:
        """The outcome of a job, if it is told within so many seconds. What is told of others is old news."""
        connection, end, answered = self._connection, time.monotonic() + seconds, False
        try:
            while (left := end - time.monotonic()) > 0:
                reply = connection.read_response(timeout=left, disconnect_on_error=False)
                answered = True
                for one in decode_lines(reply[2]) if reply[0] == b"message" else ():
                    if one.job == job:
                        self._doubted = False
                        return one
        except redis.TimeoutError:
            pass
        except (RedisError, OSError):
            self.close()
            return None
        if self._doubted and not answered:  # not even the PING
            self.close()
        self._doubted = True
        return None

    def close(self) -> None:
        """Hang up."""
        connection, self._connection, self._doubted = self._connection, None, False
        if connection is not None:
            with suppress(RedisError, OSError):
                connection.disconnect()


class DirectSubscriberPool:
    """The lines of a client. Safe for threads, and after fork."""

    def __init__(self, client: redis.Redis, keys: Keys, settings: Settings) -> None:
        self._made_of = (client, keys, settings)
        self._idle: deque[DirectSubscriber] = deque(maxlen=_KEPT)
        self._pid = os.getpid()

    @contextmanager
    def acquire(self) -> Iterator[DirectSubscriber]:
        """A line for this thread, as long as the block lasts."""
        if self._pid != os.getpid():  # what the parent process hears is not for us
            self.close()
            self._pid = os.getpid()
        try:
            line = self._idle.pop()  # the last one used: its memory is warm
        except IndexError:
            line = DirectSubscriber(*self._made_of)
        try:
            yield line
        finally:
            if len(self._idle) < _KEPT:
                self._idle.append(line)
            else:
                line.close()

    def close(self) -> None:
        """Hang up those that are idle."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()
