"""The connections of a blocking client to Redis, and how it repeats commands.

`headrace.client.aio.connections` has the same names for asyncio.
"""

from __future__ import annotations

import time
from typing import Any

import redis.client
from redis import exceptions

from headrace.client.blocking.group_commit import GroupCommit
from headrace.connection.call_limit import limit_call, remaining_seconds, within_limit
from headrace.connection.commands import Command, PendingReply, Pipeline, Pipelined, execute
from headrace.connection.connect import close_idle, connect
from headrace.connection.grouped import GroupedCommand
from headrace.connection.pipelined import PendingCommand, call_script
from headrace.connection.retry import RetryPolicy, command_seconds, try_seconds
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
        self._retry_policy = RetryPolicy()
        self._command_timeout = settings.command_timeout
        self._group_commit = GroupCommit(self._execute)
        self.listener = OutcomeListener(self._redis, keys, settings, reply_channel)
        self.direct_subscribers = DirectSubscriberPool(self._redis, keys, settings)

    def execute(self, request: Command | Pipeline | Pipelined | PendingReply) -> Any:
        """Return the reply to a request of an operation; see `Session.run`. Raises RedisError.

        It takes the seconds of a command at most, tries included, and no longer than the current call may.
        """
        if isinstance(request, GroupedCommand):
            limit = within_limit(command_seconds(self._command_timeout, blocks=False))
            return self._group_commit.execute(request, limit or 0.0)
        return self._execute(request)

    def _execute(self, request: Command | Pipeline | Pipelined | PendingReply) -> Any:
        blocks = isinstance(request, Pipeline) and request.blocks
        seconds = command_seconds(self._command_timeout, blocks=blocks)
        if isinstance(request, PendingCommand):
            seconds -= request.sending_seconds
        remaining = within_limit(seconds)
        if not remaining:
            raise exceptions.TimeoutError("the time of the call has passed")
        end, first_try = time.monotonic() + remaining, limit_call(try_seconds(remaining, tries=0, blocks=blocks))
        if isinstance(request, Pipelined):
            with first_try:
                return PendingCommand(self._redis, request.command)
        try:
            with first_try:
                reply = self._try(request)
        except exceptions.RedisError as error:
            with limit_call(end - time.monotonic()):
                return self._repeat(request.command if isinstance(request, PendingReply) else request, error)
        self._retry_policy.succeeded()
        return reply

    def _try(self, request: Command | Pipeline | PendingReply) -> Any:
        if isinstance(request, PendingReply):
            return request.reply()
        if isinstance(request, Command) and request.script is not None:
            return call_script(self._redis, request)
        return execute(self._redis, request)

    def _repeat(self, request: Command | Pipeline, error: exceptions.RedisError) -> Any:
        """Repeat a command that failed, as the retry policy allows. Raises its last error."""
        tries = 1
        while True:
            delay = self._retry_policy.next_delay(error, tries=tries, remaining=remaining_seconds() or 0.0)
            if delay is None:
                raise error
            close_idle(self._redis)
            time.sleep(delay)
            try:
                reply = self._try(request)
            except exceptions.RedisError as next_error:
                error, tries = next_error, tries + 1
            else:
                self._retry_policy.succeeded()
                return reply

    def subscribe(self, channel: str) -> redis.client.PubSub:
        """Return a subscriber of a channel, with its own connection. Raises RedisError or OSError."""
        subscriber: redis.client.PubSub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        try:
            subscriber.subscribe(channel)
            subscriber.get_message(timeout=self._command_timeout)  # the confirmation
        except BaseException:
            subscriber.close()
            raise
        return subscriber

    def close(self) -> None:
        """Close all connections. Threads that wait for outcomes get a HeadraceError."""
        self.listener.close()
        self.direct_subscribers.close()
        self._redis.close()
        self._redis.connection_pool.disconnect()
