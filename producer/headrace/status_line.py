"""One line of a terminal, drawn again and again; where there is no terminal, a plain line every few seconds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

#: Seconds between two drawings, and two plain lines.
_DRAW, _LOG = 0.1, 5.0


class StatusLine:
    """Says how far something is, on a stream. The words are made only when they are shown."""

    def __init__(self, stream: TextIO, *, terminal: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._terminal = terminal
        self._clock = clock
        self._started = self._shown = clock()
        self._drawn = False

    def elapsed_if_due(self) -> float | None:
        """Seconds since the beginning when it is time to show something, else None."""
        now = self._clock()
        if now - self._shown < (_DRAW if self._terminal else _LOG):
            return None
        self._shown = now
        return now - self._started

    def show(self, make_text: Callable[[int | None], str]) -> None:
        """Show words, made for so many columns of a terminal, or for None where there is no terminal."""
        if not self._terminal:
            self.write_line(make_text(None))
            return
        # Back to the first column, and clear what the former line had more.
        self._stream.write(f"\r{make_text(shutil.get_terminal_size().columns)}\x1b[K")
        self._stream.flush()
        self._drawn = True

    def write_line(self, text: str) -> None:
        """A line that stays."""
        self.close()
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the line, and nothing on it."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False
