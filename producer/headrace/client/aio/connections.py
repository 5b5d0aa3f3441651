"""The connections of an asyncio client to Redis, and how it repeats commands.

`headrace.client.blocking.connections` has the same names for blocking code. The clients, sessions, job handles and
dead letters of both are one source text on top of these two modules.
"""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio
from redis import exceptions

from headrace.client.aio.loop_connections import ConnectionsByLoop, LoopConnections
from headrace.connection.call_limit import limit_call, remaining_seconds, within_limit
from headrace.connection.commands import Command, PendingReply, Pipeline, Pipelined, execute_async
from headrace.connection.connect import close_idle_async
from headrace.connection.grouped import GroupedCommand
from headrace.connection.retry import RetryPolicy, command_seconds, try_seconds
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
    """A pool of connections for commands and the connection of the outcome listener, for each event loop."""

    def __init__(self, settings: Settings, keys: Keys, reply_channel: str) -> None:
        self._by_loop = ConnectionsByLoop(
            lambda: LoopConnections(settings, keys, reply_channel, self._execute_with_retries)
        )
        self._retry_policy = RetryPolicy()
        self._command_timeout = settings.command_timeout

    @property
    def listener(self) -> AsyncOutcomeListener:
        """The outcome listener in the running event loop."""
        return self._by_loop.current().listener

    async def execute(self, request: Command | Pipeline | Pipelined | PendingReply) -> Any:
        """Return the reply to a request of an operation; see `AsyncSession.run`. Raises RedisError.

        It takes the seconds of a command at most, tries included, and no longer than the current call may.
        """
        if isinstance(request, GroupedCommand):
            seconds = within_limit(command_seconds(self._command_timeout, blocks=False)) or 0.0
            return await self._by_loop.current().group_commit.execute(request, seconds)
        if isinstance(request, Pipelined):
            task = asyncio.ensure_future(self._execute_with_retries(request.command))
            await asyncio.sleep(0)  # the task starts, and sends the command
            return PendingTask(request.command, task)
        if isinstance(request, PendingReply):
            return await request.reply()
        return await self._execute_with_retries(request)

    async def _execute_with_retries(self, request: Command | Pipeline) -> Any:
        client = self._by_loop.current().redis
        blocks, tries = isinstance(request, Pipeline) and request.blocks, 0
        with limit_call(command_seconds(self._command_timeout, blocks=blocks)):
            while True:
                try:
                    reply = await self._try(client, request, tries, blocks=blocks)
                except exceptions.RedisError as error:
                    tries += 1
                    delay = self._retry_policy.next_delay(error, tries=tries, remaining=remaining_seconds() or 0.0)
                    if delay is None:
                        raise
                    await close_idle_async(client)
                    await asyncio.sleep(delay)
                else:
                    self._retry_policy.succeeded()
                    return reply

    async def _try(
        self, client: redis.asyncio.Redis, request: Command | Pipeline, tries: int, *, blocks: bool
    ) -> Any:
        remaining = remaining_seconds() or 0.0
        if not remaining:
            raise exceptions.TimeoutError("the time of the call has passed")
        try:
            async with asyncio.timeout(try_seconds(remaining, tries=tries, blocks=blocks)):
                return await execute_async(client, request)
        except TimeoutError:
            raise exceptions.TimeoutError("no reply in time") from None

    async def subscribe(self, channel: str) -> redis.asyncio.client.PubSub:
        """Return a subscriber of a channel, with its own connection. Raises RedisError or OSError."""
        subscriber = self._by_loop.current().redis.pubsub(ignore_subscribe_messages=True)
        try:
            async with asyncio.timeout(self._command_timeout):
                await subscriber.subscribe(channel)
                await subscriber.get_message(timeout=self._command_timeout)  # the confirmation
        except BaseException:
            await subscriber.aclose()  # type: ignore[no-untyped-call]  # redis-py gives it no types
            raise
        return subscriber

    async def close(self) -> None:
        """Close all connections. Callers that wait for outcomes get a HeadraceError."""
        await self._by_loop.close()
