"""A command that is sent before its reply is asked for: the blocking client's way. asyncio has tasks for it."""

from __future__ import annotations

from typing import Any

import redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from headrace.connection.commands import Command, PendingReply


class PendingCommand(PendingReply):
    """A command on its way, over a connection that serves nothing else until the reply is read."""

    def __init__(self, client: redis.Redis, command: Command) -> None:
        self.command = command
        self._pool = client.connection_pool
        self._connection: Any = None
        #: Why it could not be sent.
        self._error: RedisError | None = None
        try:
            self._connection = self._pool.get_connection()
            self._connection.send_command(*command.args)
        except RedisError as error:
            self._error = error
            self.drop()

    def reply(self) -> Any:
        """The reply, to be read once. Raises RedisError, also for why it was not sent."""
        if self._error is not None:
            raise self._error
        connection = self._connection
        try:
            try:
                reply = connection.read_response()
            except NoScriptError:
                connection.send_command(*self.command.with_source)
                reply = connection.read_response()
        except ResponseError:
            self._give_back()
            raise
        except BaseException:
            self.drop()
            raise
        self._give_back()
        return reply

    def drop(self) -> None:
        """Do without the reply."""
        if self._connection is not None:
            self._connection.disconnect()
        self._give_back()

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)
