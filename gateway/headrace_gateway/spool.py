"""A spool of bytes between the event loop and a thread: in memory, and what is more in an unnamed file.

So whoever writes is never held up by whoever reads.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque

#: Bytes in memory. What is beyond them lies in the file.
MEMORY_BYTES = 2 * 1024 * 1024


class Spool:
    """Bytes in the order of their arrival, for one writer and one reader in another thread. Close it.

    The reader sees a file: `read1` waits for bytes, `wait` says whether there are some. `end` ends the file, and
    `fail` lets the reader's calls raise. What is written after `fail` or `close` is dropped.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._file = -1
        #: Bytes of the file that were written and read.
        self._written = self._read = 0
        self._has_ended = False
        self._error: Exception | None = None

    def write(self, piece: bytes) -> None:
        """Add bytes. Raises OSError if the disk has no room for them."""
        with self._changed:
            if self._error is not None or not piece:
                return
            if self._written == self._read and self._memory_bytes + len(piece) <= MEMORY_BYTES:
                self._memory.append(piece)
                self._memory_bytes += len(piece)
            else:
                self._write_file(piece)
            self._changed.notify_all()

    def _write_file(self, piece: bytes) -> None:
        if self._file < 0:
            with tempfile.TemporaryFile(prefix="headrace-batch-", buffering=0) as file:
                self._file = os.dup(file.fileno())
        view = memoryview(piece)
        while view:
            count = os.pwrite(self._file, view, self._written)
            self._written += count
            view = view[count:]

    def end(self) -> None:
        """Note that everything was written."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Let the reader's calls raise an error from now on; the first error counts."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the error of `fail`, if there is one."""
        if self._error is not None:
            raise self._error

    def wait(self, seconds: float) -> bool:
        """Return True if `read1` returns at once, within `seconds`. Raises the error of `fail`."""
        with self._changed:
            self._changed.wait_for(self._is_ready, seconds)
            self.check()
            return self._is_ready()

    def _is_ready(self) -> bool:
        return bool(self._memory) or self._read < self._written or self._has_ended or self._error is not None

    def read1(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; none at the end. Waits for some. Raises the error of `fail`."""
        with self._changed:
            self._changed.wait_for(self._is_ready)
            self.check()
            if self._memory:
                piece = self._memory.popleft()
                if len(piece) > size:
                    self._memory.appendleft(piece[size:])
                    piece = piece[:size]
                self._memory_bytes -= len(piece)
                return piece
            if self._read == self._written:
                return b""
            piece = os.pread(self._file, min(size, self._written - self._read), self._read)
            self._read += len(piece)
            if self._read == self._written:
                self._read = self._written = 0
                os.ftruncate(self._file, 0)
            return piece

    read = read1

    @property
    def pending(self) -> int:
        """The number of bytes that were written and not read."""
        with self._changed:
            return self._memory_bytes + self._written - self._read

    def close(self) -> None:
        """Drop what was not read."""
        with self._changed:
            self._error = self._error or ValueError("the spool is closed")
            self._memory.clear()
            self._memory_bytes = self._written = self._read = 0
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
