"""Connections of redis-py whose every step ends when the current call must end (`call_limit`)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio import connection as async_connection
from redis.asyncio import sentinel as async_sentinel
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from headrace.connection.call_limit import limit_call, within_limit
from headrace.connection.host_lookup import HostAddress, look_up

#: A timeout that is this near to the right one is left as it is.
_SLACK = 1.02


class BoundedSocket:
    """A connected socket. Its timeout is that of redis-py, or less if the current call has less time left.

    It has the methods of a socket that redis-py uses. They are attributes where nothing is to be added.
    """

    __slots__ = ("_applied", "_recv_into", "_sendall", "_socket", "_timeout", "close", "fileno", "shutdown")

    def __init__(self, connected: socket.socket, timeout: float | None) -> None:
        self._socket = connected
        #: The timeout that redis-py set, and the one that the socket has now. In seconds; None is no timeout.
        self._timeout = timeout
        self._applied = connected.gettimeout()
        self._recv_into, self._sendall = connected.recv_into, connected.sendall
        self.close, self.fileno, self.shutdown = connected.close, connected.fileno, connected.shutdown

    def settimeout(self, timeout: float | None) -> None:
        """Set the longest timeout of an operation."""
        self._timeout = timeout

    def recv_into(self, buffer: Any) -> int:
        """Receive into a buffer."""
        self._apply_timeout()
        return self._recv_into(buffer)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive at most `size` bytes."""
        self._apply_timeout()
        return self._socket.recv(size, flags)

    def sendall(self, data: Any) -> None:
        """Send all bytes."""
        self._apply_timeout()
        self._sendall(data)

    def getsockname(self) -> Any:
        """Return the own address."""
        return self._socket.getsockname()

    def getpeername(self) -> Any:
        """Return the address of the server."""
        return self._socket.getpeername()

    def _apply_timeout(self) -> None:
        timeout, applied = within_limit(self._timeout), self._applied
        if timeout is None or applied is None or not timeout:
            if timeout == 0 and self._timeout != 0:
                raise TimeoutError("the time of the call has passed")
        elif timeout <= applied * _SLACK and applied <= timeout * _SLACK:
            return  # setting it is a system call
        if timeout != applied:
            self._socket.settimeout(timeout)
            self._applied = timeout


class BoundedTLSSocket(BoundedSocket):
    """A connected socket with TLS."""

    __slots__ = ("pending",)

    def __init__(self, connected: ssl.SSLSocket, timeout: float | None) -> None:
        super().__init__(connected, timeout)
        self.pending = connected.pending


class _BoundedOpening:
    """Opens a connection within `socket_connect_timeout`, and leaves none half open when it is interrupted."""

    #: The moment, monotonic, up to which the pool gives the connection without a test.
    ready_until = 0.0

    def connect_check_health(self: Any, *args: Any, **options: Any) -> None:
        with limit_call(self.socket_connect_timeout):
            try:
                super().connect_check_health(*args, **options)  # type: ignore[misc]  # of redis-py's class
            except BaseException:
                self.disconnect()
                raise


class BoundedConnection(_BoundedOpening, redis.Connection):
    """A connection over TCP."""

    def _connect(self) -> Any:
        return BoundedSocket(self._open(), self.socket_timeout)

    def _open(self) -> socket.socket:
        """Connect to the first address of the host that accepts. Raises OSError."""
        try:
            addresses = look_up(self.host, self.port, self.socket_type).result(within_limit(None))
        except TimeoutError:
            raise TimeoutError(f"looking up {self.host} timed out") from None
        failure = OSError(f"{self.host} has no address")
        for address in addresses:
            try:
                return self._open_address(address)
            except OSError as error:
                failure = error
        raise failure

    def _open_address(self, address: HostAddress) -> socket.socket:
        family, kind, protocol, _, target = address
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.socket_keepalive:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in self.socket_keepalive_options.items():
                    opened.setsockopt(socket.IPPROTO_TCP, option, value)
            opened.settimeout(_positive(within_limit(self.socket_connect_timeout)))
            opened.connect(target)
        except BaseException:
            opened.close()
            raise
        return opened


class BoundedTLSConnection(BoundedConnection, redis.SSLConnection):
    """A connection over TLS."""

    def _connect(self) -> Any:
        opened = self._open()
        try:
            # The handshake as a whole takes no longer than the timeout of the socket.
            opened.settimeout(_positive(within_limit(self.socket_timeout)))
            encrypted = self._wrap_socket_with_ssl(opened)  # type: ignore[no-untyped-call]  # redis-py has no type
        except BaseException:
            opened.close()
            raise
        return BoundedTLSSocket(encrypted, self.socket_timeout)


class BoundedUnixConnection(_BoundedOpening, redis.UnixDomainSocketConnection):
    """A connection over a unix socket."""

    def _connect(self) -> Any:
        opened = super()._connect()  # type: ignore[no-untyped-call]  # as above
        return BoundedSocket(opened, self.socket_timeout)


class BoundedPrimaryConnection(SentinelManagedConnection, BoundedConnection):
    """A connection over TCP to the primary that Sentinels name."""


class BoundedPrimaryTLSConnection(SentinelManagedSSLConnection, BoundedTLSConnection):
    """A connection over TLS to the primary that Sentinels name."""


class _AsyncBoundedOpening:
    """`_BoundedOpening` for asyncio, where an interruption is a cancellation."""

    async def connect_check_health(self: Any, *args: Any, **options: Any) -> None:
        try:
            async with asyncio.timeout(self.socket_connect_timeout):
                await super().connect_check_health(*args, **options)  # type: ignore[misc]  # of redis-py's class
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise exceptions.TimeoutError("Timeout connecting to server") from None
        except BaseException:
            await self.disconnect(nowait=True)
            raise


class AsyncBoundedConnection(_AsyncBoundedOpening, async_connection.Connection):
    """A connection over TCP, for asyncio. The task that uses it ends it in time, by cancellation."""

    #: The address of the host that is tried.
    _address: str | None = None

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = dict(super()._connection_arguments())
        if self._address is not None:
            if "ssl" in arguments:
                arguments["server_hostname"] = self.host
            arguments["host"] = self._address
        return arguments

    async def _connect(self) -> None:
        addresses = await asyncio.wrap_future(look_up(self.host, self.port))
        failure = OSError(f"{self.host} has no address")
        for *_, target in addresses:
            self._address = target[0]
            try:
                await super()._connect()  # type: ignore[no-untyped-call]  # as above
            except OSError as error:
                failure = error
            else:
                return
        raise failure


class AsyncBoundedTLSConnection(AsyncBoundedConnection, async_connection.SSLConnection):
    """A connection over TLS, for asyncio."""


class AsyncBoundedUnixConnection(_AsyncBoundedOpening, async_connection.UnixDomainSocketConnection):
    """A connection over a unix socket, for asyncio."""


class AsyncBoundedPrimaryConnection(async_sentinel.SentinelManagedConnection, AsyncBoundedConnection):
    """A connection over TCP to the primary that Sentinels name, for asyncio."""


class AsyncBoundedPrimaryTLSConnection(async_sentinel.SentinelManagedSSLConnection, AsyncBoundedTLSConnection):
    """A connection over TLS to the primary that Sentinels name, for asyncio."""


_BOUNDED: dict[type[Any], type[Any]] = {
    redis.Connection: BoundedConnection,
    redis.SSLConnection: BoundedTLSConnection,
    redis.UnixDomainSocketConnection: BoundedUnixConnection,
    SentinelManagedConnection: BoundedPrimaryConnection,
    SentinelManagedSSLConnection: BoundedPrimaryTLSConnection,
    async_connection.Connection: AsyncBoundedConnection,
    async_connection.SSLConnection: AsyncBoundedTLSConnection,
    async_connection.UnixDomainSocketConnection: AsyncBoundedUnixConnection,
    async_sentinel.SentinelManagedConnection: AsyncBoundedPrimaryConnection,
    async_sentinel.SentinelManagedSSLConnection: AsyncBoundedPrimaryTLSConnection,
}


def bound_connections(pool: Any) -> None:
    """Let the pool make bounded connections from now on."""
    pool.connection_class = _BOUNDED[pool.connection_class]


def _positive(seconds: float | None) -> float | None:
    """Return a timeout that lets an operation wait at all: 0 would be a socket that never waits."""
    return None if seconds is None else max(seconds, 0.001)
