"""A pool of connections of redis-py, which gives a connection in use again and again without a test."""

from __future__ import annotations

import os
import time
from typing import Any

import redis

from headrace.connection.call_limit import within_limit

#: Seconds after its last command in which a connection is used again without a test.
_READY_SECONDS = 0.1


class BoundedPool(redis.BlockingConnectionPool):
    """A pool of a client. Waiting for a free connection ends with the current call too."""

    #: The longest wait in seconds; None has no limit.
    _timeout: float | None = None

    @property
    def timeout(self) -> float | None:
        """The seconds to wait for a free connection now."""
        return within_limit(self._timeout)

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """Take a connection, as redis-py's method."""
        connection: Any = super().get_connection(*args, **options)  # type: ignore[no-untyped-call]  # redis-py
        connection.ready_until = 0.0  # redis-py may return it with a reply that nobody has read
        return connection

    def take_connection(self) -> Any:
        """Take a connection that is ready to send, as `get_connection`, which costs more. Raises RedisError.

        `get_connection` tests each connection by two system calls, as Redis may have closed it while it was idle.
        A connection that `put_connection` got a moment ago is taken without a test. If Redis has closed it since
        then, the command fails as after any lost connection, and is repeated.
        """
        if self.pid == os.getpid():  # otherwise the connections are those of the parent process
            with self.pool.mutex:
                idle = self.pool.queue
                if idle and idle[-1] is not None and _is_ready(idle[-1]):
                    return idle.pop()
        return self.get_connection()

    def put_connection(self, connection: Any) -> None:
        """Return a connection to the pool, as `release`, which costs more. All its replies were read."""
        owns: Any = self.owns_connection  # with Sentinels, not if it leads to a former primary
        if self.pid != os.getpid() or not owns(connection) or connection.should_reconnect():
            self.release(connection)  # type: ignore[no-untyped-call]  # as above
        else:
            connection.ready_until = time.monotonic() + _READY_SECONDS
            self.pool.put_nowait(connection)


def _is_ready(connection: Any) -> bool:
    return connection._sock is not None and time.monotonic() < connection.ready_until  # noqa: SLF001
