"""Unpacks bodies that come as gzip or deflate, in pieces of a bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from starlette.requests import Request

from headrace_gateway.problems import Problem

#: The most bytes of a piece: a kilobyte of gzip may unpack to a megabyte.
PIECE_BYTES = 256 * 1024
#: Packed bytes that are read at a time. zlib copies the rest of them behind each member, and members may be tiny.
_SLICE_BYTES = 16 * 1024
#: The windows of zlib: a gzip member, and a stream with the header of zlib.
GZIP, DEFLATE = 31, 15
#: The window of each Content-Encoding. Deflate has the header of zlib, as RFC 9110 says and clients send it.
_WINDOWS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": DEFLATE}


class Unpacker:
    """Unpacks one body. `window` is GZIP or DEFLATE.

    gzip may have several members, as `cat` and parallel packers write; deflate is one stream.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._stream = zlib.decompressobj(wbits=window)

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        """Yield what further bytes unpack to, in pieces of at most PIECE_BYTES.

        No more is unpacked than the caller takes. Raises a Problem, 400, for bytes that are no gzip or deflate.
        """
        for start in range(0, len(packed), _SLICE_BYTES):
            yield from self._unpack_slice(packed[start : start + _SLICE_BYTES])

    def _unpack_slice(self, packed: bytes) -> Iterator[bytes]:
        size = 0
        while packed or size == PIECE_BYTES:  # a full piece: there may be more without further bytes
            if self._stream.eof:
                self._begin_member()
            try:
                piece = self._stream.decompress(packed, PIECE_BYTES)
            except zlib.error:
                raise _broken() from None
            packed = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            size = 0 if self._stream.eof else len(piece)
            if piece:
                yield piece

    def _begin_member(self) -> None:
        if self._window != GZIP:
            raise _broken()
        self._stream = zlib.decompressobj(wbits=self._window)

    def finish(self) -> None:
        """Raise a Problem, 400, unless the stream or the last member is complete."""
        if not self._stream.eof:
            raise _broken()


def choose_unpacker(request: Request) -> Unpacker | None:
    """Return the unpacker of a request's body; None for a plain one. Raises a Problem: 415."""
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing == "identity":
        return None
    if packing not in _WINDOWS:
        raise Problem(
            415,
            "unsupported-encoding",
            "the body has a Content-Encoding that the gateway cannot unpack; send it plain, or as gzip or deflate",
            headers={"Accept-Encoding": "gzip, deflate"},
        )
    return Unpacker(_WINDOWS[packing])


def _broken() -> Problem:
    detail = "the body is no gzip or deflate, or its end is missing, though its Content-Encoding says so"
    return Problem(400, "malformed-body", detail)
