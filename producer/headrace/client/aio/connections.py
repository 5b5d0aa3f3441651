"""The connections of an asyncio client to Redis, and how it repeats commands.

`headrace.client.blocking.connections` has the same names for blocking code. The clients, sessions, job handles and
dead letters of both are one source text on top of these two modules.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from redis.exceptions import RedisError

from headrace.connection.commands import Command, PendingReply, Pipeline, Pipelined, execute_async
from headrace.connection.connect import close_idle_async, connect_async
from headrace.connection.retry import RetryPolicy
from headrace.results.aio_listener import AsyncOutcomeListener
from headrace.settings import Settings
from headrace.wire.keys import Keys

sleep = asyncio.sleep


class PendingTask(PendingReply):
    """A command that a task runs while its operation goes on."""

    def __init__(self, command: Command, task: asyncio.Future[Any]) -> None:
        self.command, self._task = command, task

    def reply(self) -> asyncio.Future[Any]:
        """Return the future of the reply."""
        return self._task

    def drop(self) -> None:
        """Discard the reply."""
        if not self._task.cancel() and not self._task.cancelled():
            self._task.exception()  # otherwise asyncio logs that the exception was never retrieved


class AsyncConnections:
    """A pool of connections for commands, and the connection of the outcome listener.

    They belong to the event loop that uses them first.
    """

    def __init__(self, settings: Settings, keys: Keys, reply_channel: str) -> None:
        self._redis = connect_async(settings, retries=0)  # `execute` repeats commands
        self._retry_policy = RetryPolicy(settings.command_timeout)
        self.listener = AsyncOutcomeListener(self._redis, keys, settings, reply_channel)

    async def execute(
        self,
        timeout: float | None,
        request: Command | Pipeline | Pipelined | PendingReply,
    ) -> Any:
        """Return the reply to a request of an operation; see `AsyncSession.run`. Raises RedisError."""
        if isinstance(request, Pipelined):
            task = asyncio.ensure_future(self._execute_with_retries(timeout, request.command))
            for _ in range(2):  # the task starts; in Python 3.11 a task inside it sends the command
                await asyncio.sleep(0)
            return PendingTask(request.command, task)
        if isinstance(request, PendingReply):
            return await request.reply()
        return await self._execute_with_retries(timeout, request)

    async def _execute_with_retries(self, timeout: float | None, command: Command | Pipeline) -> Any:
        first_sent, tries = time.monotonic(), 0
        while True:
            try:
                reply = await execute_async(self._redis, command)
            except RedisError as error:
                tries += 1
                delay = self._retry_policy.next_delay(
                    error, tries=tries, elapsed=time.monotonic() - first_sent, timeout=timeout
                )
                if delay is None:
                    raise
                await close_idle_async(self._redis)
                await asyncio.sleep(delay)
            else:
                self._retry_policy.succeeded()
                return reply

    async def close(self) -> None:
        """Close all connections. Callers that wait for outcomes get a HeadraceError."""
        await self.listener.close()
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
