"""The progress of a run that a command waits for: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from headrace.cli.bulk_format import format_progress
from headrace.status_line import StatusLine
from headrace.wire.bulk import RunProgress

#: Seconds without progress after which the meter says how to look for the cause.
_SILENCE_SECONDS = 15.0
#: Seconds of a wait before its rate says anything.
_MIN_SECONDS = 1.0


class RunMeter:
    """Shows the progress of one run on a stream. `terminal` tells whether the stream is a terminal."""

    def __init__(self, stream: TextIO, *, terminal: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = StatusLine(stream, terminal=terminal, clock=clock)
        self._clock = clock
        #: The moment of the first progress, and the rows that were done then.
        self._first: tuple[float, int] | None = None
        #: The moment of the last change, and the state and chunks after it.
        self._change: tuple[float, tuple[str, int]] | None = None
        self._warned = False

    def show(self, progress: RunProgress) -> None:
        """Show the progress if it is time to draw again."""
        now = self._clock()
        if self._first is None:
            self._first = now, progress.rows_done
        self._warn_if_idle(progress, now)
        if self._line.elapsed_if_due() is not None:
            rate = self._rate(progress, now)
            self._line.show(lambda width: format_progress(progress, rate, width=width))

    def _rate(self, progress: RunProgress, now: float) -> float | None:
        """Return the rows a second since the wait began: a resumed run may have stood still before."""
        began, rows = self._first or (now, 0)
        return (progress.rows_done - rows) / (now - began) if now - began >= _MIN_SECONDS else None

    def _warn_if_idle(self, progress: RunProgress, now: float) -> None:
        mark = progress.state, progress.chunks_done
        if self._change is None or self._change[1] != mark:
            self._change, self._warned = (now, mark), False
        seconds = now - self._change[0]
        if seconds > _SILENCE_SECONDS and not self._warned:
            self._warned = True
            name = progress.run.name
            self._line.write_line(
                f"run {name}: no progress for {seconds:.0f} s; `headrace explain {name}` says what it waits for"
            )

    def close(self) -> None:
        """Remove the bar from the terminal."""
        self._line.close()
