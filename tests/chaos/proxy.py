"""A TCP proxy with network faults: it cuts connections, loses replies, goes silent, and delays.

    with Proxy(redis_port) as proxy:
        client = Client(proxy.url)
        proxy.cut()

It runs an event loop in its own thread. Every method may be called from any thread, and has taken effect when it
returns. It listens on loopback, unless it is given another address.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeVar

T = TypeVar("T")

#: The value of SO_LINGER with which closing a socket sends RST and drops unsent data.
_LINGER_RESET = struct.pack("ii", 1, 0)
#: Bytes of one read.
_CHUNK = 256 * 1024
#: Bytes of a connection's first requests that are stored to identify it.
_HEAD = 1024


class _Loss(NamedTuple):
    """A reply to lose: the bytes of its request, the fault after it, and its smallest size."""

    request: bytes
    then: Literal["cut", "silent"]
    min_bytes: int


class _ProxiedConnection:
    """One connection through the proxy: the client's half and the server's."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        #: Set while data passes.
        self.flowing = asyncio.Event()
        self.flowing.set()
        #: The first bytes from the client, to identify the connection.
        self.head = b""
        #: The last bytes from the client, which may contain the start of a request whose reply is to be lost.
        self.tail = b""
        #: The fault for the next reply; None to let it pass.
        self.loss: _Loss | None = None


class Proxy:
    """A proxy from a port of `host` to `to_port` of `to_host`, as a context manager.

    Its sockets belong to the network namespace of the thread that enters the context.
    """

    def __init__(self, to_port: int, *, host: str = "127.0.0.1", to_host: str = "127.0.0.1") -> None:
        self.host, self.to_host, self.to_port = host, to_host, to_port
        self.port = 0
        #: The number of replies lost by `lose_reply`.
        self.lost_replies = 0
        self._pairs: set[_ProxiedConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._delay = (0.0, b"")
        self._pending_losses: list[_Loss] = []
        self._lost_changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)

    @property
    def url(self) -> str:
        """The Redis URL of the server as seen through the proxy."""
        return f"redis://{self.host}:{self.port}/0"

    # --- faults --------------------------------------------------------------------------------------

    def cut(self, *, refuse: bool = False) -> int:
        """End all connections with RST, and with `refuse` new ones too until `accept`. Return their number."""

        def cut() -> int:
            self._refusing = self._refusing or refuse
            return sum(self._reset(pair) for pair in list(self._pairs))

        return self._call_in_loop(cut)

    def accept(self) -> None:
        """Accept new connections again."""
        self._call_in_loop(lambda: setattr(self, "_refusing", False))

    def go_silent(self) -> int:
        """Stop passing data on the existing connections, without FIN or RST. Return their number.

        New connections are forwarded.
        """

        def silence() -> int:
            flowing = [pair for pair in self._pairs if pair.flowing.is_set()]
            for pair in flowing:
                pair.flowing.clear()
            return len(flowing)

        return self._call_in_loop(silence)

    def lose_reply(self, request: bytes, *, then: Literal["cut", "silent"] = "cut", min_bytes: int = 0) -> None:
        """Lose the reply to the next request that contains these bytes, then cut or silence the connection.

        A reply of less than `min_bytes` bytes passes, and the next such request counts. Each call loses one reply.
        """
        self._call_in_loop(lambda: self._pending_losses.append(_Loss(request, then, min_bytes)))

    def wait_lost(self, count: int = 1, timeout: float = 10.0) -> bool:
        """Wait until `count` replies are lost, and return True if they are."""
        with self._lost_changed:
            return self._lost_changed.wait_for(lambda: self.lost_replies >= count, timeout)

    def delay(self, seconds: float, marker: bytes = b"") -> None:
        """Delay data in each direction by `seconds`; 0 ends it.

        With a `marker`, only connections whose first requests contain these bytes are delayed.
        """
        self._call_in_loop(lambda: setattr(self, "_delay", (seconds, marker)))

    @property
    def connections(self) -> int:
        """The number of connections, silent ones included."""
        return self._call_in_loop(lambda: len(self._pairs))

    # --- implementation --------------------------------------------------------------------------------

    def _call_in_loop(self, call: Callable[[], T]) -> T:
        async def call_async() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(call_async(), self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(client)
            return
        try:
            from_server, server = await asyncio.open_connection(self.to_host, self.to_port)
        except OSError:
            _reset(client)
            return
        pair = _ProxiedConnection(client, server)
        self._pairs.add(pair)
        for task in (
            asyncio.ensure_future(self._requests(pair, reader)),
            asyncio.ensure_future(self._replies(pair, from_server)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _requests(self, pair: _ProxiedConnection, reader: asyncio.StreamReader) -> None:
        with self._closing(pair):
            while data := await reader.read(_CHUNK):
                await self._delay_data(pair)
                self._inspect_request(pair, data)
                pair.server.write(data)
                await pair.server.drain()

    async def _replies(self, pair: _ProxiedConnection, reader: asyncio.StreamReader) -> None:
        with self._closing(pair):
            while data := await reader.read(_CHUNK):
                await self._delay_data(pair)
                loss, pair.loss = pair.loss, None
                if loss is not None and len(data) >= loss.min_bytes:
                    self._lose(pair, loss)
                    continue
                if loss is not None:
                    self._pending_losses.insert(0, loss)
                pair.client.write(data)
                await pair.client.drain()

    async def _delay_data(self, pair: _ProxiedConnection) -> None:
        await pair.flowing.wait()
        seconds, marker = self._delay
        if seconds and marker in pair.head:
            await asyncio.sleep(seconds)

    def _inspect_request(self, pair: _ProxiedConnection, data: bytes) -> None:
        """Identify the connection, and check whether the reply to this request is to be lost."""
        if len(pair.head) < _HEAD:
            pair.head += data[:_HEAD]
        if not self._pending_losses:
            pair.tail = b""
            return
        loss = self._pending_losses[0]
        received = pair.tail + data
        if loss.request in received:
            pair.loss = self._pending_losses.pop(0)
            received = b""
        pair.tail = received[-len(loss.request) :]

    def _lose(self, pair: _ProxiedConnection, loss: _Loss) -> None:
        pair.flowing.clear()
        with self._lost_changed:
            self.lost_replies += 1
            self._lost_changed.notify_all()
        if loss.then == "cut":
            self._reset(pair)

    @contextlib.contextmanager
    def _closing(self, pair: _ProxiedConnection) -> Iterator[None]:
        """Close both halves of a connection when one of them ends."""
        try:
            yield
        except OSError:
            pass
        finally:
            self._pairs.discard(pair)
            for writer in (pair.client, pair.server):
                writer.close()

    def _reset(self, pair: _ProxiedConnection) -> bool:
        self._pairs.discard(pair)
        pair.flowing.set()
        _reset(pair.client)
        _reset(pair.server)
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.start_server(self._serve, self.host, 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        async def close() -> None:
            self._server.close()
            for pair in list(self._pairs):
                self._reset(pair)
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    writer.transport.abort()
