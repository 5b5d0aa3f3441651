"""The load generator: connections that each send one request after the other, for some seconds.

`python -m benchmarks.http.load CONFIG`, with a `Config` as JSON; prints what it measured as JSON. It runs as a
process of its own, so that its processor time is not that of a server. A request is bytes that were made before,
and of an answer only the status and the length are read.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from typing import Any, NamedTuple

#: Seconds that answers may take after the end of the load.
_LAST_SECONDS = 60.0


class Config(NamedTuple):
    """A load."""

    port: int
    path: str
    #: The bodies of the requests, in turns.
    bodies: list[str]
    connections: int
    seconds: float


class _Connection(asyncio.Protocol):
    """A connection with one request under way. It sends the next as soon as the answer is complete."""

    def __init__(self, load: _Load, first: int) -> None:
        self._load, self._number = load, first
        self._received = bytearray()
        self._expected = -1
        self._sent_at = 0.0
        self._transport: Any = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        requests = self._load.requests
        self._sent_at = time.perf_counter()
        self._transport.write(requests[self._number % len(requests)])
        self._number += 1

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if self._expected < 0:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._expected = end + 4 + _content_length(bytes(received[:end]))
        if len(received) < self._expected:
            return
        now = time.perf_counter()
        status = bytes(received[9:12]).decode()
        self._load.record(status, now - self._sent_at)
        received.clear()
        self._expected = -1
        if now < self._load.end:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the protocol's
        if time.perf_counter() < self._load.end:
            self._load.lost += 1
        if not self.closed.done():
            self.closed.set_result(None)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("an answer without Content-Length")


class _Load:
    """The requests, and what was measured of the answers."""

    def __init__(self, config: Config) -> None:
        head = (
            f"POST {config.path} HTTP/1.1\r\nHost: 127.0.0.1:{config.port}\r\nContent-Type: application/json\r\n"
        )
        self.requests = [f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode() for body in config.bodies]
        self.end = time.perf_counter() + config.seconds
        self.latencies: list[float] = []
        self.statuses: dict[str, int] = {}
        self.lost = 0

    def record(self, status: str, seconds: float) -> None:
        self.latencies.append(seconds)
        self.statuses[status] = self.statuses.get(status, 0) + 1


async def _run(config: Config) -> dict[str, Any]:
    load, loop = _Load(config), asyncio.get_running_loop()
    started = time.perf_counter()
    connections = []
    for number in range(config.connections):
        _, connection = await loop.create_connection(
            lambda number=number: _Connection(load, 7 * number),  # type: ignore[misc]  # bound at once
            "127.0.0.1",
            config.port,
        )
        connections.append(connection)
    await asyncio.wait([connection.closed for connection in connections], timeout=config.seconds + _LAST_SECONDS)
    elapsed = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    ordered = sorted(load.latencies)
    return {
        "requests": len(ordered),
        "seconds": elapsed,
        "statuses": load.statuses,
        "lost": load.lost,
        "own_cpu_seconds": usage.ru_utime + usage.ru_stime,
        **{f"p{share}_ms": 1000 * _percentile(ordered, share / 100) for share in (50, 99)},
    }


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def main() -> None:
    """Run the load of `sys.argv[1]`, or of standard input for `-`; print JSON."""
    text = sys.stdin.read() if sys.argv[1] == "-" else sys.argv[1]
    config = Config(**json.loads(text))
    import uvloop

    print(json.dumps(uvloop.run(_run(config))))


if __name__ == "__main__":
    main()
