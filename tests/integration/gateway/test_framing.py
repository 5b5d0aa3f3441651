"""A gateway refuses a request whose end is ambiguous, so that no proxy in front can disagree with it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.gateway import RunningGateway, running_gateway

PATH = "/v1/models/churn:predict"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """An open gateway without a worker, which no request here needs."""
    with (
        EmbeddedRedis("--appendonly", "no") as redis,
        running_gateway(redis.url, tmp_path_factory.mktemp("gateway")) as gateway,
    ):
        yield gateway


def exchange(gateway: RunningGateway, sent: bytes) -> bytes:
    """Send bytes, and return all that comes back until the gateway ends the connection."""
    received = b""
    port = int(gateway.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        while data := connection.recv(65536):
            received += data
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def post(*headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"POST {PATH} HTTP/1.1", "Host: a", *headers, "", ""]).encode("latin-1") + body


@pytest.mark.parametrize(
    "sent",
    [
        post("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
        post("Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
        post("Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED),
        post("Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
        post("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=b"0\r\n\r\n" + SMUGGLED),
        post("Transfer-Encoding:\r\n chunked", "Content-Length: 0", body=b"0\r\n\r\n" + SMUGGLED),
        post("Content-Length: 0", "Content-Length: 30", body=SMUGGLED),
        post("Content-Length: 2", "Content-Length: 2", body=b"{}" + SMUGGLED),
        post("Content-Length: 2, 2", body=b"{}" + SMUGGLED),
        post("Content-Length: +2", body=b"{}" + SMUGGLED),
        post("Content-Length: 0x2", body=b"{}" + SMUGGLED),
        post("Content-Length: -1", body=SMUGGLED),
        post("X-A: b\r\n Content-Length: 2", "Content-Length: 0", body=SMUGGLED),
        post("X-A: b\x00c", "Content-Length: 0", body=SMUGGLED),
        post("Transfer-Encoding: chunked", body=b"2\n{}\n0\n\n" + SMUGGLED),
        post("Transfer-Encoding: chunked", body=b"-2\r\n{}\r\n0\r\n\r\n" + SMUGGLED),
        post("Transfer-Encoding: chunked", body=b"2\r\n{}XX0\r\n\r\n" + SMUGGLED),
    ],
    ids=lambda sent: re.sub(rb"\s+", b" ", sent.split(b"Host: a\r\n", 1)[1])[:70].decode("latin-1"),
)
def test_an_ambiguous_request_is_refused_and_nothing_behind_it_is_read(
    gateway: RunningGateway, sent: bytes
) -> None:
    received = exchange(gateway, sent)
    assert statuses(received) == [400]
    assert b"smuggled" not in received


def test_two_clear_requests_on_one_connection_get_two_answers(gateway: RunningGateway) -> None:
    body = b'{"instances": []}'
    first = post("Content-Type: application/json", f"Content-Length: {len(body)}", body=body)
    second = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    first_status, second_status = statuses(exchange(gateway, first + second))
    assert first_status in (404, 422)
    assert second_status == 404
