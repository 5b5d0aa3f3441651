"""The connections of a blocking client to Redis, and how it repeats commands.

`headrace.client.aio.connections` has the same names for asyncio.
"""

from __future__ import annotations

import time
from typing import Any

from redis.exceptions import RedisError

from headrace.connection.commands import Command, PendingReply, Pipeline, Pipelined, execute
from headrace.connection.connect import close_idle, connect
from headrace.connection.pipelined import PendingCommand
from headrace.connection.retry import RetryPolicy
from headrace.results.direct import DirectSubscriberPool
from headrace.results.listener import OutcomeListener
from headrace.settings import Settings
from headrace.wire.keys import Keys

sleep = time.sleep


class Connections:
    """A pool of connections for commands, the outcome listener's connection, and direct subscribers.

    Safe for threads, and after fork.
    """

    def __init__(self, settings: Settings, keys: Keys, reply_channel: str) -> None:
        self._redis = connect(settings, retries=0)  # `execute` repeats commands
        self._retry_policy = RetryPolicy(settings.command_timeout)
        self.listener = OutcomeListener(self._redis, keys, settings, reply_channel)
        self.direct_subscribers = DirectSubscriberPool(self._redis, keys, settings)

    def execute(self, timeout: float | None, request: Command | Pipeline | Pipelined | PendingReply) -> Any:
        """Return the reply to a request of an operation; see `Session.run`. Raises RedisError."""
        if isinstance(request, Pipelined):
            return PendingCommand(self._redis, request.command)
        first_sent, tries = time.monotonic(), 0
        while True:
            try:
                reply = request.reply() if isinstance(request, PendingReply) else execute(self._redis, request)
            except RedisError as error:
                if isinstance(request, PendingReply):
                    request = request.command
                tries += 1
                delay = self._retry_policy.next_delay(
                    error, tries=tries, elapsed=time.monotonic() - first_sent, timeout=timeout
                )
                if delay is None:
                    raise
                close_idle(self._redis)
                time.sleep(delay)
            else:
                self._retry_policy.succeeded()
                return reply

    def close(self) -> None:
        """Close all connections. Threads that wait for outcomes get a HeadraceError."""
        self.listener.close()
        self.direct_subscribers.close()
        self._redis.close()
        self._redis.connection_pool.disconnect()
