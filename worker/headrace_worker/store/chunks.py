"""Read, hash and write large bytes in chunks, with a pause after each.

A thread that loads a model shares the process with threads that serve jobs. A thread that computes without a pause
keeps its processor for a whole time slice (3 ms in Linux) while woken threads wait, and a system call that copies
50 MB is not interrupted. The pauses keep these waits short.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import IO

#: Bytes that are copied or hashed in a fraction of a millisecond.
CHUNK_BYTES = 512 * 1024
#: Seconds to sleep between two chunks. In practice falling asleep and waking takes longer than this.
_PAUSE = 20e-6


def split(data: bytes) -> Iterator[memoryview]:
    """Yield views of the data, a chunk each; nothing is copied."""
    view = memoryview(data)
    for start in range(0, len(data), CHUNK_BYTES):
        if start:
            time.sleep(_PAUSE)
        yield view[start : start + CHUNK_BYTES]


def read(file: IO[bytes], max_bytes: int) -> bytes:
    """Return the content of a file, at most `max_bytes` of it."""
    buffer = io.BytesIO()
    while chunk := file.read(min(CHUNK_BYTES, max_bytes - buffer.tell())):
        buffer.write(chunk)
        if len(chunk) == CHUNK_BYTES:
            time.sleep(_PAUSE)
    return buffer.getvalue()


def write(file: IO[bytes], data: bytes) -> None:
    """Write all of the data to a file."""
    for chunk in split(data):
        file.write(chunk)


class ThrottledFile(io.FileIO):
    """A file that pauses its reader after each chunk, however many calls read that chunk."""

    _until_pause = CHUNK_BYTES

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed has more kinds of buffers
        """Fill a buffer with at most one chunk and return the number of bytes read."""
        count = super().readinto(memoryview(buffer)[:CHUNK_BYTES]) or 0
        self._until_pause -= count
        if self._until_pause <= 0:
            self._until_pause = CHUNK_BYTES
            time.sleep(_PAUSE)
        return count
