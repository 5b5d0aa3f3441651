"""The way of an answer from the thread that writes it to the event loop that sends it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from headrace_gateway.spool import Spool

#: Bytes that wait for the caller. The thread waits while there are more.
_MAX_BYTES = 1024 * 1024
#: Bytes that are sent at a time.
_PIECE_BYTES = 256 * 1024


class AnswerPipe:
    """Bytes from a thread to a task. The thread sees a file: `write`, and `flush` to hand over what was written.

    Until `open`, the answer is not sent, and the thread never waits. `fail` lets the thread's calls raise.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._changed = threading.Condition()
        self._pieces: list[bytes] = []
        self._spool = Spool()
        self._is_open = self._has_ended = False
        self._error: Exception | None = None

    def write(self, piece: bytes) -> int:
        """Add bytes."""
        self._pieces.append(piece)
        return len(piece)

    def flush(self) -> None:
        """Hand over what was written, once the caller has taken what was before. Raises the error of `fail`."""
        piece = b"".join(self._pieces)
        self._pieces.clear()
        with self._changed:
            self._changed.wait_for(self._may_write)
            if self._error is not None:
                raise self._error
        if piece:
            self._spool.write(piece)
            self._wake()

    def _may_write(self) -> bool:
        return not self._is_open or self._spool.pending < _MAX_BYTES or self._error is not None

    def end(self) -> None:
        """Note, from the thread, that it writes no more."""
        self._has_ended = True
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._arrived.set)

    def open(self) -> None:
        """Begin to send: from now on the thread waits for the caller."""
        self._is_open = True

    def fail(self, error: Exception) -> None:
        """Let the thread's calls raise an error from now on; the first error counts."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    async def next(self) -> bytes:
        """Wait for bytes that were handed over, and return them; none at the end."""
        while True:
            self._arrived.clear()
            has_ended = self._has_ended  # before the look at the spool, which may be filled meanwhile
            if self._spool.pending:
                piece = self._spool.read1(_PIECE_BYTES)
                with self._changed:
                    self._changed.notify_all()
                return piece
            if has_ended:
                return b""
            await self._arrived.wait()

    def close(self) -> None:
        """Drop what was not sent."""
        self._spool.close()
