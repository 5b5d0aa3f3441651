"""Bodies that come as gzip or deflate: what they unpack to, in pieces, and what is refused."""

from __future__ import annotations

import gzip
import itertools
import random
import tracemalloc
import zlib

import pytest
from starlette.requests import Request

from headrace_gateway.bodies import read_body
from headrace_gateway.problems import Problem
from headrace_gateway.unpacking import DEFLATE, GZIP, PIECE_BYTES, Unpacker, choose_unpacker


def pack_gzip(content: bytes) -> bytes:
    """Return a gzip member without a time: the ids of tests hold its bytes, and are the same in each process."""
    return gzip.compress(content, mtime=0)


CONTENT = b"a" * 3_000_000 + random.Random(2).randbytes(1000)


def request_with(packing: str | None, *bodies: bytes) -> Request:
    """Return a request with this Content-Encoding, whose body arrives in these messages."""
    headers = [] if packing is None else [(b"content-encoding", packing.encode())]
    messages = iter([{"type": "http.request", "body": body, "more_body": True} for body in bodies])

    async def receive() -> dict[str, object]:
        return next(messages, {"type": "http.request", "body": b"", "more_body": False})

    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def unpack(window: int, packed: bytes, step: int = 10**9) -> list[bytes]:
    """Return the pieces of a whole body that arrives in parts of `step` bytes."""
    unpacker, pieces = Unpacker(window), []
    for start in range(0, len(packed), step):
        pieces += unpacker.unpack(packed[start : start + step])
    unpacker.finish()
    return pieces


@pytest.mark.parametrize("step", [1, 7, 1000, 10**9])
@pytest.mark.parametrize(
    ("window", "packed"),
    [
        (GZIP, pack_gzip(CONTENT[:-3]) + pack_gzip(b"") + pack_gzip(CONTENT[-3:])),
        (DEFLATE, zlib.compress(CONTENT)),
    ],
    ids=["gzip", "deflate"],
)
def test_a_body_is_unpacked_in_bounded_pieces_however_it_arrives(window: int, packed: bytes, step: int):
    pieces = unpack(window, packed, step)
    assert b"".join(pieces) == CONTENT
    assert max(map(len, pieces)) <= PIECE_BYTES


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES])
@pytest.mark.parametrize(("window", "pack"), [(GZIP, pack_gzip), (DEFLATE, zlib.compress)])
def test_a_body_about_as_large_as_a_piece_is_complete(window: int, pack, size: int):
    assert sum(map(len, unpack(window, pack(b"a" * size)))) == size


@pytest.mark.parametrize("step", [1, 10**9])
@pytest.mark.parametrize(
    ("window", "packed"),
    [
        (GZIP, b"plain"),
        (GZIP, b""),
        (GZIP, pack_gzip(b"a" * 100)[:-1]),
        (GZIP, pack_gzip(b"a") + b"rest"),
        (GZIP, pack_gzip(b"a") + pack_gzip(b"b")[:-1]),
        (GZIP, zlib.compress(b"a")),
        (DEFLATE, b"plain"),
        (DEFLATE, b""),
        (DEFLATE, zlib.compress(b"a" * 100)[:-1]),
        (DEFLATE, zlib.compress(b"a") + b"rest"),
        (DEFLATE, zlib.compress(b"a") + zlib.compress(b"b")),
        (DEFLATE, pack_gzip(b"a")),
    ],
)
def test_a_body_that_is_not_whole_or_not_of_its_packing_is_a_problem(window: int, packed: bytes, step: int):
    with pytest.raises(Problem) as error:
        unpack(window, packed, step)
    assert (error.value.status, error.value.kind) == (400, "malformed-body")


@pytest.mark.parametrize(("window", "pack"), [(GZIP, pack_gzip), (DEFLATE, zlib.compress)])
def test_no_more_is_unpacked_than_is_taken(window: int, pack):
    bomb = pack(b"a" * 100_000_000)
    tracemalloc.start()
    try:
        pieces = list(itertools.islice(Unpacker(window).unpack(bomb), 2))
        assert tracemalloc.get_traced_memory()[1] < 5 * PIECE_BYTES
    finally:
        tracemalloc.stop()
    assert [len(piece) for piece in pieces] == [PIECE_BYTES] * 2


@pytest.mark.parametrize(("packing", "pack"), [("gzip", pack_gzip), ("deflate", zlib.compress)])
async def test_a_body_is_refused_at_its_limit_and_not_unpacked_further(packing: str, pack):
    bomb = pack(b"a" * 100_000_000)
    limit = len(bomb) + 1
    tracemalloc.start()
    try:
        with pytest.raises(Problem) as error:
            await read_body(request_with(packing, bomb), limit=limit, seconds=10)
        assert tracemalloc.get_traced_memory()[1] < limit + 5 * PIECE_BYTES
    finally:
        tracemalloc.stop()
    assert error.value.status == 413


async def test_a_packed_body_has_a_limit_as_it_comes_too():
    body = pack_gzip(b"a" * 100)
    members = pack_gzip(b"") * 10 + body
    for bodies in ((members,), (members[:150], members[150:])):
        with pytest.raises(Problem) as error:
            await read_body(request_with("gzip", *bodies), limit=200, seconds=10)
        assert error.value.status == 413
    assert await read_body(request_with("gzip", body), limit=100, seconds=10) == b"a" * 100


@pytest.mark.parametrize(
    ("packing", "body"),
    [("gzip", pack_gzip(b"a")), ("X-GZip ", pack_gzip(b"a")), ("deflate", zlib.compress(b"a"))],
)
def test_the_packing_is_that_of_the_header(packing: str, body: bytes):
    unpacker = choose_unpacker(request_with(packing))
    assert unpacker is not None
    assert list(unpacker.unpack(body)) == [b"a"]


@pytest.mark.parametrize("packing", [None, "identity", "Identity"])
def test_a_plain_body_has_no_unpacker(packing: str | None):
    assert choose_unpacker(request_with(packing)) is None


@pytest.mark.parametrize("packing", ["br", "zstd", "gzip, deflate", ""])
def test_an_unknown_packing_is_415_and_names_the_known_ones(packing: str):
    with pytest.raises(Problem) as error:
        choose_unpacker(request_with(packing))
    assert error.value.status == 415
    assert error.value.headers == {"Accept-Encoding": "gzip, deflate"}
