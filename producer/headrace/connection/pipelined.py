"""A command that is sent before its reply is read, for blocking clients. asyncio clients use tasks."""

from __future__ import annotations

import time
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from headrace.connection.commands import Argument, Command, PendingReply
from headrace.connection.script_calls import ScriptCall


class PendingCommand(PendingReply):
    """A command sent over a connection of its own, which returns to the pool when the reply is read."""

    def __init__(self, client: redis.Redis, command: Command) -> None:
        self.command = command
        self._pool = client.connection_pool
        self._connection: Any = None
        self._call = ScriptCall(client.connection_pool)
        #: The error that sending the command raised.
        self._error: RedisError | None = None
        started_at = time.monotonic()
        try:
            self._connection = self._pool.get_connection()
            self._connection.send_command(*self._args)
        except RedisError as error:
            self._error = error
            self.drop()
        #: The seconds that sending took, of the time of the command.
        self.sending_seconds = time.monotonic() - started_at

    @property
    def _args(self) -> tuple[Argument, ...]:
        return self.command.in_form(self._call.form) if self.command.script else self.command.args

    def reply(self) -> Any:
        """Read the reply; call it once. Raises RedisError, also if the command could not be sent."""
        if self._error is not None:
            raise self._error
        connection = self._connection
        try:
            reply = self._read(connection)
        except ResponseError:
            self._release()
            raise
        except BaseException:
            self.drop()
            raise
        self._release()
        return reply

    def _read(self, connection: Any) -> Any:
        """Read the reply. If the server refuses the form of the script, send another, and read its reply."""
        while True:
            try:
                reply = connection.read_response()
            except ResponseError as error:
                if self.command.script is None:
                    raise
                if (refusal := self._call.refused(error, self.command.script.function)) is not None:
                    raise refusal from None
                connection.send_command(*self._args)
            else:
                self._call.succeeded()
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
