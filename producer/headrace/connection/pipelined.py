"""Commands that blocking clients send without redis-py's own way, which costs more than Redis itself.

The connections are redis-py's: they connect, log in, encrypt and test themselves. See also `connection.bounded`.
"""

from __future__ import annotations

import time
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from headrace.connection.commands import Command, PendingReply
from headrace.connection.script_calls import ScriptCall, accepted_form, is_form_refused


def call_script(client: redis.Redis, command: Command) -> Any:
    """Call a script and return the reply. Raises RedisError."""
    pool: Any = client.connection_pool
    form = accepted_form(pool)
    if form is None:
        return PendingCommand(client, command).reply()
    connection = pool.take_connection()
    try:
        connection.send_packed_command((command.pack(form),))
        reply = connection.read_response()
    except ResponseError as error:
        pool.put_connection(connection)
        if not is_form_refused(form, error):
            raise
        return PendingCommand(client, command).reply()
    except BaseException:
        connection.disconnect()
        pool.put_connection(connection)
        raise
    pool.put_connection(connection)
    return reply


class PendingCommand(PendingReply):
    """A command sent ahead of reading its reply, over a connection that returns to the pool then.

    asyncio clients use tasks.
    """

    def __init__(self, client: redis.Redis, command: Command) -> None:
        self.command = command
        self._pool: Any = client.connection_pool
        self._connection: Any = None
        self._call = ScriptCall(client.connection_pool)
        #: The error that sending the command raised.
        self._error: RedisError | None = None
        started_at = time.monotonic()
        try:
            pool: Any = client.connection_pool
            self._connection = pool.take_connection()
            self._connection.send_packed_command((self._packed,))
        except RedisError as error:
            self._error = error
            self.drop()
        #: The seconds that sending took, of the time of the command.
        self.sending_seconds = time.monotonic() - started_at

    @property
    def _packed(self) -> bytes:
        return self.command.pack(self._call.form)

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
                connection.send_packed_command((self._packed,))
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
            self._pool.put_connection(connection)
