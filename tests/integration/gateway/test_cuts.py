"""A connection is cut at each byte of a request and of its answer, and the call is repeated: it is one job."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
import redis

from headrace import Client
from tests.support.gateway import RunningGateway
from tests.support.served_worker import KEYS, Site
from tests.support.waiting import wait_until

#: Calls at once.
CALLS = 32
#: Closes a connection with a reset.
RESET = struct.pack("ii", 1, 0)

Address = tuple[str, int]


@pytest.fixture
def server(shared: Site) -> Iterator[redis.Redis]:
    """A connection to the Redis of the site."""
    with redis.Redis.from_url(shared.url) as server:
        yield server


def post_job(name: str, row: list[float]) -> bytes:
    """Return a request that submits a job with a key."""
    headers = (f"Idempotency-Key: {name}", "Prefer: respond-async")
    return _request("POST /v1/models/doubling/jobs", {"instances": [row]}, *headers)


def put_job(name: str, row: list[float]) -> bytes:
    """Return a request that puts a job under an id."""
    return _request(f"PUT /v1/jobs/{name}", {"model": "doubling", "instances": [row]})


def predict(name: str, row: list[float]) -> bytes:
    """Return a request for a prediction with a key."""
    return _request("POST /v1/models/doubling:predict", {"instances": [row]}, f"Idempotency-Key: {name}")


def infer(name: str, row: list[float]) -> bytes:
    """Return a request of Open Inference with a key. Its answer has the job's id, as it has none of its own."""
    tensor = {"name": "rows", "shape": [1, 3], "datatype": "FP64", "data": row}
    return _request("POST /v2/models/doubling/infer", {"inputs": [tensor]}, f"Idempotency-Key: {name}")


def cancel_job(name: str) -> bytes:
    """Return a request that cancels a job."""
    return f"DELETE /v1/jobs/{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def _request(line: str, body: dict[str, object], *headers: str) -> bytes:
    content = json.dumps(body).encode()
    head = (f"{line} HTTP/1.1", "Host: a", "Content-Type: application/json", *headers)
    return "\r\n".join([*head, f"Content-Length: {len(content)}", "", ""]).encode() + content


@pytest.mark.parametrize("request_of", [post_job, put_job, predict, infer], ids=lambda function: function.__name__)
async def test_a_call_that_is_cut_at_any_byte_and_repeated_is_one_job(
    gateway: RunningGateway, shared: Site, server: redis.Redis, request_of: Callable[[str, list[float]], bytes]
) -> None:
    url, limit = httpx.URL(gateway.url), asyncio.Semaphore(CALLS)
    address = (url.host, url.port or 80)
    names = (f"{request_of.__name__}-{number:04}" for number in itertools.count())
    rows = {next(names): _row(shared)}
    ((name, row),) = rows.items()
    answer = await _call(address, request_of(name, row))
    size = len(request_of(name, row))
    cuts = [(sent, 0) for sent in range(size)] + [(size, read) for read in range(len(answer) + 1)]

    async def cut_and_repeat(name: str, row: list[float], sent: int, read: int) -> None:
        async with limit:
            await _cut(address, request_of(name, row), sent, read)
            answer = await _call(address, request_of(name, row))
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201", b"HTTP/1.1 202"))
        assert f'"id":"{name}"'.encode() in answer

    async with asyncio.TaskGroup() as calls:
        for cut in cuts:
            name, row = next(names), _row(shared)
            rows[name] = row
            calls.create_task(cut_and_repeat(name, row, *cut))
    wait_until(lambda: all(server.exists(KEYS.result(name)) for name in rows))
    assert [name for name in rows if not server.exists(KEYS.job(name))] == []
    runs = Counter(number for batch in shared.predict_calls(list(rows.values())) for number in batch)
    assert [runs[int(row[0])] for row in rows.values()] == [1] * len(rows)


async def test_a_cancellation_that_is_cut_at_any_byte_and_repeated_cancels_its_job(
    gateway: RunningGateway, shared: Site, server: redis.Redis
) -> None:
    url, limit = httpx.URL(gateway.url), asyncio.Semaphore(CALLS)
    address = (url.host, url.port or 80)
    names = [f"cancel-{number:04}" for number in range(600)]
    with Client(shared.url, check=False) as client:
        client.submit_many("doubling", [_row(shared) for _ in names], ids=names, delay=3600)
    answer = await _call(address, cancel_job(names[0]))
    size = len(cancel_job(names[0]))
    cuts = [(sent, 0) for sent in range(size)] + [(size, read) for read in range(len(answer) + 1)]

    async def cut_and_repeat(name: str, sent: int, read: int) -> None:
        async with limit:
            await _cut(address, cancel_job(name), sent, read)
            answer = await _call(address, cancel_job(name))
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"status":"cancelled"' in answer

    async with asyncio.TaskGroup() as calls:
        for name, cut in zip(names[1:], cuts, strict=False):
            calls.create_task(cut_and_repeat(name, *cut))
    cancelled = names[: len(cuts) + 1]
    assert len(cancelled) < len(names)
    assert [name for name in names if server.exists(KEYS.result(name))] == cancelled


def _row(site: Site) -> list[float]:
    """Return a row that no other test uses, of the same number of bytes as all others."""
    return [10_000 + next(site.numbers), 0, 0]


async def _cut(address: Address, request: bytes, sent: int, read: int) -> None:
    """Send the first bytes of a request, read the first bytes of the answer, and cut the connection."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request[:sent])
    await writer.drain()
    if read:
        await reader.readexactly(read)
    if (sent + read) % 2:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _call(address: Address, request: bytes) -> bytes:
    """Send a request, and return the whole answer."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    body = await reader.readexactly(int(length.partition(b":")[2]))
    writer.transport.abort()
    return head + body
