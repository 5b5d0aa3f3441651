"""Bodies of requests over HTTP: sizes, packings, and bodies that come slowly or not at all."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Iterator

import httpx
import pytest

from tests.support.gateway import RunningGateway, running_gateway
from tests.support.served_worker import Site

PREDICT = "/v1/models/doubling:predict"
ROW = [2, 0, 0]
LIMIT = 20_000


@pytest.fixture(scope="module")
def small(shared: Site) -> Iterator[RunningGateway]:
    """A gateway with a small limit for bodies, and little time for them."""
    settings = {"HEADRACE_MAX_JOB_BYTES": str(LIMIT), "HEADRACE_GATEWAY_BODY_TIMEOUT": "0.5"}
    with running_gateway(shared.url, shared.folder, name="small", **settings) as gateway:
        yield gateway


@pytest.fixture
def api(small: RunningGateway) -> Iterator[httpx.Client]:
    """An HTTP client of that gateway."""
    with small.client(timeout=20, headers={"Content-Type": "application/json"}) as client:
        yield client


def kind_of(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the kind of a problem."""
    return answer.status_code, answer.json()["type"].rsplit("/", 1)[1]


def padded(size: int) -> bytes:
    """Return the body of a prediction of this size."""
    body = json.dumps({"instances": [ROW]}).encode()
    return body + b" " * (size - len(body))


def test_a_body_at_the_limit_is_taken_and_one_beyond_it_is_413(api: httpx.Client) -> None:
    assert api.post(PREDICT, content=padded(LIMIT)).json()["predictions"] == [4.0]
    answer = api.post(PREDICT, content=padded(LIMIT + 1))
    assert kind_of(answer) == (413, "too-large")
    assert "20,000 bytes" in answer.json()["detail"]


def test_a_body_without_a_length_is_413_once_it_is_beyond_the_limit(api: httpx.Client) -> None:
    pieces = (b" " * 1000 for _ in range(LIMIT // 1000 + 1))
    assert kind_of(api.post(PREDICT, content=pieces)) == (413, "too-large")
    assert api.post(PREDICT, content=iter([padded(100)[:50], padded(100)[50:]])).json()["predictions"] == [4.0]


def test_a_length_beyond_the_limit_is_refused_before_the_body_comes(small: RunningGateway) -> None:
    head = _head(small, "Content-Length: 999999999", "Expect: 100-continue")
    with _connect(small) as connection:
        connection.sendall(head)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")  # and no 100 Continue


def test_a_packed_body_is_unpacked(api: httpx.Client) -> None:
    for packing, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        answer = api.post(PREDICT, content=pack(padded(1000)), headers={"Content-Encoding": packing})
        assert answer.json()["predictions"] == [4.0]


def test_a_packed_body_may_have_several_members(api: httpx.Client) -> None:
    body = gzip.compress(padded(1000)[:20]) + gzip.compress(padded(1000)[20:])
    answer = api.post(PREDICT, content=body, headers={"Content-Encoding": "gzip"})
    assert answer.json()["predictions"] == [4.0]


def test_a_small_body_that_unpacks_to_a_large_one_is_413(api: httpx.Client) -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    assert len(bomb) > LIMIT  # too large as it is
    small_bomb = gzip.compress(padded(LIMIT + 1))
    assert len(small_bomb) < 1000
    for packed in (bomb, small_bomb):
        answer = api.post(PREDICT, content=packed, headers={"Content-Encoding": "gzip"})
        assert kind_of(answer) == (413, "too-large")


@pytest.mark.parametrize(
    "packed",
    [
        b"not gzip at all",
        gzip.compress(padded(100))[:-9],
        gzip.compress(padded(100)) + b"trailing",
        zlib.compress(padded(100)),
        b"",
    ],
    ids=["text", "cut", "trailing", "zlib", "empty"],
)
def test_a_body_that_is_no_gzip_though_it_says_so_is_400(api: httpx.Client, packed: bytes) -> None:
    answer = api.post(PREDICT, content=packed, headers={"Content-Encoding": "gzip"})
    assert kind_of(answer) == (400, "malformed-body")


def test_a_packing_that_is_not_known_is_415_and_names_the_one_that_is(api: httpx.Client) -> None:
    answer = api.post(PREDICT, content=b"...", headers={"Content-Encoding": "br"})
    assert kind_of(answer) == (415, "unsupported-encoding")
    assert answer.headers["accept-encoding"] == "gzip, deflate"


def test_a_body_that_does_not_come_in_time_is_408_and_the_connection_is_closed(small: RunningGateway) -> None:
    with _connect(small) as connection:
        connection.sendall(_head(small, "Content-Length: 40") + b'{"instances"')
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()
    assert b"body-timeout" in answer


def test_a_caller_who_hangs_up_in_the_middle_of_a_body_leaves_no_job(
    small: RunningGateway, shared: Site, api: httpx.Client
) -> None:
    with _connect(small) as connection:
        connection.sendall(_head(small, "Content-Length: 40", "Idempotency-Key: half") + b'{"instances"')
    assert api.post(PREDICT, content=padded(100)).status_code == 200  # the gateway goes on
    assert kind_of(api.get("/v1/jobs/half")) == (404, "unknown-job")


def _connect(gateway: RunningGateway) -> socket.socket:
    url = httpx.URL(gateway.url)
    return socket.create_connection((url.host, url.port or 80), timeout=20)


def _head(gateway: RunningGateway, *headers: str) -> bytes:
    lines = (f"POST {PREDICT} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers, "", "")
    return "\r\n".join(lines).encode()
