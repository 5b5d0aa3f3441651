"""The connection on which Redis names the keys that changed, while another connection claims."""

from __future__ import annotations

import re
import ssl
from typing import Any

import redis

from headrace_worker.transport.notifications import INVALIDATION_CHANNEL

#: A string in a message, in RESP2.
_STRING = re.compile(rb"\$\d+\r\n([^\r\n]*)\r\n")
#: The strings that are in every message: all others are keys.
_ENVELOPE = {b"message", INVALIDATION_CHANNEL.encode()}
#: The most bytes of messages that are read at once.
_READ_BYTES = 65_536
#: The most bytes of a piece that are read again with the next, as they may be the begin of a key.
_LONGEST_KEY = 4096


class NotificationListener:
    """A subscription to changed keys, for one connection that claims.

    `claiming` is that connection, with no reply pending; `pool` is its pool, whose parameters the subscription
    shares. Raises redis.ConnectionError.
    """

    def __init__(self, claiming: Any, pool: Any) -> None:
        self._claiming_socket = claiming._sock  # noqa: SLF001  # the identity of the connection, as kombu uses it
        # In RESP2, invalidations are messages of a channel, and go to another connection than the one that asks.
        # redis-py ties its maintenance notices to RESP3, and their options must go with it.
        options = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith("maint_")}
        self._connection = pool.connection_class(**{**options, "protocol": 2})
        #: The ids at Redis of the connection that claims, and of this one; 0 if Redis refuses to tell.
        self.claiming_id = self.id = 0
        #: The error with which Redis refused the subscription; then there are no notifications.
        self.refusal: redis.ResponseError | None = None
        #: The socket to watch, and its file descriptor; None without a subscription.
        self.socket: Any = None
        #: The end of what was read, which may be the begin of a key.
        self._rest = b""
        self.fd: int | None = None
        try:
            self.claiming_id = _ask_id(claiming)
            self._connection.connect()
            self.id = _ask_id(self._connection)
            self._connection.send_command("SUBSCRIBE", INVALIDATION_CHANNEL)
            self._connection.read_response()
        except redis.ResponseError as error:
            self._connection.disconnect()
            self.refusal = error
            return
        self.socket = self._connection._sock  # noqa: SLF001  # as kombu does
        self.socket.settimeout(0)
        self.fd = self.socket.fileno()

    def belongs_to(self, claiming: Any) -> bool:
        """Return whether this was made for the socket that a connection has now."""
        return self._claiming_socket is not None and claiming._sock is self._claiming_socket  # noqa: SLF001

    def read_changes(self) -> list[set[bytes]]:
        """Read what Redis sent: for each piece, the keys it names. A piece that is cut may name none.

        Raises OSError when the connection is closed.
        """
        changes = []
        try:
            while data := self.socket.recv(_READ_BYTES):
                size, data = len(data), self._rest + data
                strings = list(_STRING.finditer(data))
                self._rest = data[strings[-1].end() :][-_LONGEST_KEY:] if strings else data[-_LONGEST_KEY:]
                changes.append({match[1] for match in strings} - _ENVELOPE)
                if size < _READ_BYTES:
                    break
            else:
                raise ConnectionResetError("Redis has closed the connection that names changed keys")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        return changes

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()


def _ask_id(connection: Any) -> int:
    connection.send_command("CLIENT", "ID")
    return int(connection.read_response())
