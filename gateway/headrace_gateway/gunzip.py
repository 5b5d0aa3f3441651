"""Unpacks a stream of gzip, in pieces of a bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from headrace_gateway.problems import Problem

#: The most bytes of a piece: a kilobyte of gzip may unpack to a megabyte.
PIECE_BYTES = 256 * 1024


class Gunzip:
    """Unpacks one gzip stream, which may have several members, as `cat` and parallel packers write."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._has_begun = False

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        """Yield what further bytes unpack to. Raises a Problem: 400 for what is no gzip."""
        size = 0
        while packed or size == PIECE_BYTES:  # a full piece: there may be more without further bytes
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            self._has_begun = True
            try:
                piece = self._member.decompress(packed, PIECE_BYTES)
            except zlib.error:
                raise _broken() from None
            packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            size = 0 if self._member.eof else len(piece)
            if piece:
                yield piece

    def finish(self) -> None:
        """Raise a Problem, 400, unless the last member is complete."""
        if self._has_begun and not self._member.eof:
            raise _broken()


def _broken() -> Problem:
    detail = "the body is no gzip, or its end is missing, though its Content-Encoding says gzip"
    return Problem(400, "malformed-body", detail)
