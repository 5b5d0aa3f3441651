"""Large bytes piece by piece, with a rest between two: a thread that loads a model runs beside those that serve.

A thread that does one thing for long keeps its processor for a time slice, 3 ms in Linux, before one that has been
woken has it; and a system call that copies 50 MB is not left in the middle. Whoever waits for a job then waits for
that, at each of its steps.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import IO

#: Bytes that are copied or hashed in a fraction of a millisecond.
PIECE = 512 * 1024
#: Seconds; to fall asleep and wake takes longer.
_REST = 20e-6


def chunks(data: bytes) -> Iterator[memoryview]:
    """The pieces of some bytes, not copied."""
    view = memoryview(data)
    for at in range(0, len(data), PIECE):
        if at:
            time.sleep(_REST)
        yield view[at : at + PIECE]


def read(file: IO[bytes], most: int) -> bytes:
    """What is in a file, so many bytes at the most."""
    whole = io.BytesIO()
    while piece := file.read(min(PIECE, most - whole.tell())):
        whole.write(piece)
        if len(piece) == PIECE:
            time.sleep(_REST)
    return whole.getvalue()


def write(file: IO[bytes], data: bytes) -> None:
    """Put all of it into a file."""
    for piece in chunks(data):
        file.write(piece)


class ThrottledFile(io.FileIO):
    """A file whose reader rests each time it has read as much as a piece, in however many parts."""

    _until_rest = PIECE

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]  # typeshed has more kinds of buffers
        """Fill a buffer, as far as one piece does."""
        count = super().readinto(memoryview(into)[:PIECE]) or 0
        self._until_rest -= count
        if self._until_rest <= 0:
            self._until_rest = PIECE
            time.sleep(_REST)
        return count
