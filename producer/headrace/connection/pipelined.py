"""A command that is sent before its reply is read, for blocking clients. asyncio clients use tasks."""

from __future__ import annotations

from typing import Any

import redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from headrace.connection.commands import Command, PendingReply


class PendingCommand(PendingReply):
    """A command sent over a connection of its own, which returns to the pool when the reply is read."""

    def __init__(self, client: redis.Redis, command: Command) -> None:
        self.command = command
        self._pool = client.connection_pool
        self._connection: Any = None
        #: The error that sending the command raised.
        self._error: RedisError | None = None
        try:
            self._connection = self._pool.get_connection()
            self._connection.send_command(*command.args)
        except RedisError as error:
            self._error = error
            self.drop()

    def reply(self) -> Any:
        """Read the reply; call it once. Raises RedisError, also if the command could not be sent."""
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
            self._release()
            raise
        except BaseException:
            self.drop()
            raise
        self._release()
        return reply

    def drop(self) -> None:
        """Give up the reply and close the connection."""
        if self._connection is not None:
            self._connection.disconnect()
        self._release()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)
