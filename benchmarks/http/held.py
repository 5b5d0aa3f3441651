"""Connections that stay open beside the load: `python -m benchmarks.http.held CONFIG`.

Event streams are opened and read; slow requests send a byte of their head a second. It prints a line when all are
open, with the statuses of the streams, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import NamedTuple

_OPEN_SECONDS = 60.0


class Config(NamedTuple):
    """The connections to hold open."""

    port: int
    #: The path of an event stream, and how many to open.
    path: str
    streams: int
    slow_requests: int


async def _open_stream(config: Config) -> str:
    """Open a stream, and read it in a task; return the status of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
    head = f"GET {config.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    _TASKS.add(asyncio.create_task(_read(reader, writer)))
    return answer[9:12].decode()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass
    writer.close()


async def _drip(config: Config) -> None:
    """Send the head of a request byte by byte, again on a new connection where the server closes it."""
    head = f"POST {config.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: {'x' * 10_000}".encode()
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", config.port)
            for byte in head:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(1)
        except OSError:
            await asyncio.sleep(1)


_TASKS: set[asyncio.Task[None]] = set()


async def _run(config: Config) -> None:
    async with asyncio.timeout(_OPEN_SECONDS):
        statuses = [await _open_stream(config) for _ in range(config.streams)]
    _TASKS.update(asyncio.create_task(_drip(config)) for _ in range(config.slow_requests))
    await asyncio.sleep(1)
    print(json.dumps(sorted(set(statuses))), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_run(Config(**json.loads(sys.argv[1]))))
