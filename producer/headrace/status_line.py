"""A line on a terminal that shows the progress of a task; without a terminal, a plain line every few seconds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

from headrace.terminal import escape_controls, write_control

#: Seconds between two updates on a terminal, and between two plain lines.
_UPDATE_SECONDS, _LOG_SECONDS = 0.1, 5.0


class StatusLine:
    """A status line on a stream. Its text is made only when it is shown.

    `terminal` tells whether the stream is a terminal.
    """

    def __init__(self, stream: TextIO, *, terminal: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._terminal = terminal
        self._clock = clock
        self._started = self._shown = clock()
        self._drawn = False

    def elapsed_if_due(self) -> float | None:
        """Return the seconds since the start if the line is due for an update, else None."""
        now = self._clock()
        if now - self._shown < (_UPDATE_SECONDS if self._terminal else _LOG_SECONDS):
            return None
        self._shown = now
        return now - self._started

    def show(self, make_text: Callable[[int | None], str]) -> None:
        """Show the text that `make_text` returns for the terminal's columns, or for None without a terminal."""
        if not self._terminal:
            self.write_line(make_text(None))
            return
        # Go back to the first column, and clear the rest of a longer former line.
        text = escape_controls(make_text(shutil.get_terminal_size().columns))
        write_control(self._stream, f"\r{text}\x1b[K")
        self._stream.flush()
        self._drawn = True

    def write_line(self, text: str) -> None:
        """Write a line that stays, in place of the status line."""
        self.close()
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Clear the status line."""
        if self._drawn:
            write_control(self._stream, "\r\x1b[K")
            self._stream.flush()
            self._drawn = False
