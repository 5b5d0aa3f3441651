"""A TCP load balancer that knows nothing of HTTP: connections in turns, and another server if one refuses."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Sequence


@contextlib.asynccontextmanager
async def running_balancer(ports: Sequence[int]) -> AsyncIterator[str]:
    """Balance connections over the ports of this machine. Yields the URL of the balancer."""
    turns = itertools.count()
    connections: set[asyncio.Task[None]] = set()

    async def connect() -> tuple[StreamReader, StreamWriter]:
        first = next(turns)
        for number in range(len(ports)):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", ports[(first + number) % len(ports)])
        raise ConnectionRefusedError

    async def balance(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            server_reader, server_writer = await connect()
            try:
                await asyncio.gather(_pipe(reader, server_writer), _pipe(server_reader, writer))
            finally:
                await _close(server_writer)
        except OSError:
            pass
        finally:
            await _close(writer)

    def accept(reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.ensure_future(balance(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _pipe(reader: StreamReader, writer: StreamWriter) -> None:
    """Copy what is read until its end, and close the other side."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def _close(writer: StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
