"""The connections of an asyncio client in each event loop that uses it.

Connections of asyncio belong to the event loop that opened them. A client may outlive its loop: `asyncio.run`
ends its own, and pytest-asyncio has one for each test. So the client has connections for each loop. Those of a
loop that has ended are dropped when the client is next used in another, or closed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from headrace.client.aio.group_commit import AsyncGroupCommit
from headrace.connection.commands import Command
from headrace.connection.connect import connect_async
from headrace.results.aio_listener import AsyncOutcomeListener
from headrace.settings import Settings
from headrace.wire.keys import Keys

#: Seconds for closing the connections of a loop: a TLS session ends with a reply of the server.
_CLOSE_SECONDS = 1.0


class LoopConnections:
    """A pool of connections for commands, and the connection of the outcome listener, of one event loop.

    `send` sends a command over the pool.
    """

    def __init__(
        self, settings: Settings, keys: Keys, reply_channel: str, send: Callable[[Command], Awaitable[Any]]
    ) -> None:
        self.redis = connect_async(settings, retries=0)  # the client repeats commands
        self.listener = AsyncOutcomeListener(self.redis, keys, settings, reply_channel)
        self.group_commit = AsyncGroupCommit(send)
        self._pid = os.getpid()

    async def close(self) -> None:
        """Close the connections in their own loop. Callers that wait for outcomes get a HeadraceError."""
        await self.group_commit.close(_CLOSE_SECONDS)
        # The listener last: a caller that gets its error may end the loop.
        with suppress(TimeoutError, RedisError, OSError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.redis.aclose()
                await self.redis.connection_pool.disconnect()
        await self.listener.close()

    def shut_down(self) -> None:
        """End the connections from outside of their loop, where nothing of them can be awaited."""
        for connection in self._open_connections():
            with suppress(OSError, TypeError):  # uvloop's socket refuses
                connection._writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)  # noqa: SLF001

    def drop(self) -> None:
        """End the connections of a loop that has ended, and free their sockets."""
        self.shut_down()
        for connection in self._open_connections():
            transport = connection._writer.transport  # noqa: SLF001  # redis-py cannot close it without its loop
            with suppress(RuntimeError):  # the loop takes no call
                transport.abort()
            if (connected := getattr(transport, "_sock", None)) is not None:
                connected.close()
                transport._sock = None  # noqa: SLF001  # asyncio would close it later, and warn of it
            connection._reader = connection._writer = None  # noqa: SLF001  # as redis-py does when it closes

    def _open_connections(self) -> list[Any]:
        if self._pid != os.getpid():  # after a fork, the sockets are the parent's too
            return []
        pool: Any = self.redis.connection_pool
        pooled = (*pool._available_connections, *pool._in_use_connections)  # noqa: SLF001  # redis-py lists them nowhere
        connections = (*pooled, self.listener.connection)
        return [connection for connection in connections if connection is not None and connection.is_connected]


class ConnectionsByLoop:
    """The connections of one client, by event loop."""

    def __init__(self, create: Callable[[], LoopConnections]) -> None:
        self._create = create
        self._by_loop: dict[AbstractEventLoop, LoopConnections] = {}
        #: For the first loop: made at once, so that settings that cannot be used are refused at once.
        self._unused: LoopConnections | None = create()

    def current(self) -> LoopConnections:
        """Return the connections of the running loop; new ones if it has none yet."""
        loop = asyncio.get_running_loop()
        connections = self._by_loop.get(loop)
        if connections is None:
            self._drop_ended()
            unused, self._unused = self._unused, None
            connections = self._by_loop[loop] = unused or self._create()
        return connections

    def _drop_ended(self) -> None:
        for loop in [loop for loop in list(self._by_loop) if loop.is_closed()]:
            if (connections := self._by_loop.pop(loop, None)) is not None:
                connections.drop()

    async def close(self) -> None:
        """Close the connections of all loops. In another loop, the client connects anew."""
        self._drop_ended()
        running = asyncio.get_running_loop()
        if running in self._by_loop:
            await self._by_loop[running].close()
        for loop in [loop for loop in list(self._by_loop) if loop is not running]:
            if (connections := self._by_loop.pop(loop, None)) is not None:
                await _close_in(loop, connections)


async def _close_in(loop: AbstractEventLoop, connections: LoopConnections) -> None:
    """Close the connections of another loop: it runs in another thread, or it pauses and may run again."""
    closed = threading.Event()

    def close() -> None:
        loop.create_task(connections.close()).add_done_callback(lambda _: closed.set())

    is_running = loop.is_running()
    if not is_running:
        connections.shut_down()
    try:
        loop.call_soon_threadsafe(close)
    except RuntimeError:  # it has ended in between
        connections.drop()
    else:
        if is_running:
            await asyncio.to_thread(closed.wait, 2 * _CLOSE_SECONDS)
