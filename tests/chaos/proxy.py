"""A TCP proxy that does to connections what networks do: cut them, lose a reply, fall silent, be slow.

    with Proxy(redis_port) as proxy:
        client = Client(proxy.url)
        proxy.cut()

It runs an event loop in a thread of its own; every method may be called from any thread, and has had its
effect when it returns. Loopback only.
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

#: With this SO_LINGER, closing sends RST: the other side learns at once, and loses what is under way.
_RESET = struct.pack("ii", 1, 0)
_CHUNK = 256 * 1024
#: Bytes of the beginning of a connection that are kept to know it by.
_HEAD = 1024


class _Loss(NamedTuple):
    """A reply to lose: to which request, what becomes of the connection, and how long it is at least."""

    to: bytes
    then: Literal["cut", "silent"]
    at_least: int


class _Pair:
    """One connection through the proxy: the client's half and the server's."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        #: Set while bytes flow.
        self.flows = asyncio.Event()
        self.flows.set()
        #: The beginning of what the client sent, by which to know it.
        self.head = b""
        #: The end of it, in which the beginning of a request looked for may lie.
        self.tail = b""
        #: What becomes of the reply now under way; None to let it pass.
        self.loses: _Loss | None = None


class Proxy:
    """Forwards a port of its own on loopback to another one. A context manager."""

    def __init__(self, to_port: int) -> None:
        self.to_port = to_port
        self.port = 0
        #: Replies that were lost, of those `lose_reply` asked for.
        self.lost = 0
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refuses = False
        self._delay = (0.0, b"")
        self._pending_losses: list[_Loss] = []
        self._lost_changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)

    @property
    def url(self) -> str:
        """The Redis URL of the server as seen through the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    # --- what can happen to connections --------------------------------------------------------------

    def cut(self, *, refuse: bool = False) -> int:
        """End all connections with RST; with `refuse`, new ones too until `accept`. Returns how many."""

        def cut() -> int:
            self._refuses = self._refuses or refuse
            return sum(self._reset(pair) for pair in list(self._pairs))

        return self._call_in_loop(cut)

    def accept(self) -> None:
        """Take new connections again."""
        self._call_in_loop(lambda: setattr(self, "_refuses", False))

    def go_silent(self) -> int:
        """From now on nothing passes on the connections there are, and nobody is told: no FIN, no RST.

        New connections are forwarded. Returns how many fell silent.
        """

        def silence() -> int:
            flowing = [pair for pair in self._pairs if pair.flows.is_set()]
            for pair in flowing:
                pair.flows.clear()
            return len(flowing)

        return self._call_in_loop(silence)

    def lose_reply(self, to: bytes, *, then: Literal["cut", "silent"] = "cut", at_least: int = 0) -> None:
        """The next request with these bytes in it reaches the server, its reply nobody: then the end.

        Shorter replies than `at_least` bytes pass, and the next such request is waited for. Called several times,
        so many replies are lost, each on the next such request.
        """
        self._call_in_loop(lambda: self._pending_losses.append(_Loss(to, then, at_least)))

    def wait_lost(self, count: int = 1, timeout: float = 10.0) -> bool:
        """Wait until so many replies were lost; whether they were."""
        with self._lost_changed:
            return self._lost_changed.wait_for(lambda: self.lost >= count, timeout)

    def delay(self, seconds: float, marker: bytes = b"") -> None:
        """Hold what passes, in each direction, for so long; 0 ends it.

        Only on connections that began with a request with the bytes `of` in it, if any are given.
        """
        self._call_in_loop(lambda: setattr(self, "_delay", (seconds, marker)))

    @property
    def connections(self) -> int:
        """The number of connections, with silent ones."""
        return self._call_in_loop(lambda: len(self._pairs))

    # --- how it is done --------------------------------------------------------------------------------

    def _call_in_loop(self, call: Callable[[], T]) -> T:
        async def done() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._refuses:
            _reset(client)
            return
        try:
            from_server, server = await asyncio.open_connection("127.0.0.1", self.to_port)
        except OSError:
            _reset(client)
            return
        pair = _Pair(client, server)
        self._pairs.add(pair)
        for task in (
            asyncio.ensure_future(self._requests(pair, reader)),
            asyncio.ensure_future(self._replies(pair, from_server)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _requests(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        with self._ends(pair):
            while data := await reader.read(_CHUNK):
                await self._hold(pair)
                self._inspect_request(pair, data)
                pair.server.write(data)
                await pair.server.drain()

    async def _replies(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        with self._ends(pair):
            while data := await reader.read(_CHUNK):
                await self._hold(pair)
                loss, pair.loses = pair.loses, None
                if loss is not None and len(data) >= loss.at_least:
                    self._lose(pair, loss)
                    continue
                if loss is not None:
                    self._pending_losses.insert(0, loss)
                pair.client.write(data)
                await pair.client.drain()

    async def _hold(self, pair: _Pair) -> None:
        await pair.flows.wait()
        seconds, marker = self._delay
        if seconds and marker in pair.head:
            await asyncio.sleep(seconds)

    def _inspect_request(self, pair: _Pair, data: bytes) -> None:
        """See who this is, and whether the reply to this is one to lose."""
        if len(pair.head) < _HEAD:
            pair.head += data[:_HEAD]
        if not self._pending_losses:
            pair.tail = b""
            return
        loss = self._pending_losses[0]
        received = pair.tail + data
        if loss.to in received:
            pair.loses = self._pending_losses.pop(0)
            received = b""
        pair.tail = received[-len(loss.to) :]

    def _lose(self, pair: _Pair, loss: _Loss) -> None:
        pair.flows.clear()
        with self._lost_changed:
            self.lost += 1
            self._lost_changed.notify_all()
        if loss.then == "cut":
            self._reset(pair)

    @contextlib.contextmanager
    def _ends(self, pair: _Pair) -> Iterator[None]:
        """Close both halves of a connection when one of them ends."""
        try:
            yield
        except OSError:
            pass
        finally:
            self._pairs.discard(pair)
            for writer in (pair.client, pair.server):
                writer.close()

    def _reset(self, pair: _Pair) -> bool:
        self._pairs.discard(pair)
        pair.flows.set()
        _reset(pair.client)
        _reset(pair.server)
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0)
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
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
