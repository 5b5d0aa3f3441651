"""How far a batch is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

import msgspec

from headrace.status_line import StatusLine

#: Seconds without a single row after which the missing worker is worth a word.
_SILENCE = 15.0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Rows written so far, and the bytes of the input they took."""

    rows: int = 0
    failed: int = 0
    read: int = 0


def describe(progress: Progress, *, seconds: float, size: int | None) -> str:
    """Progress in words: done, failed, rate and, where the input's size is known, the time remaining."""
    rate = progress.rows / seconds if seconds > 0 else 0.0
    parts = [f"{progress.rows:,} rows done", f"{progress.failed:,} failed", f"{rate:,.0f} rows/s"]
    if size and 0 < progress.read < size:
        parts.append(f"{_clock(seconds * (size - progress.read) / progress.read)} left")
    return ", ".join(parts)


def bar(progress: Progress, *, seconds: float, size: int | None, width: int) -> str:
    """Progress as one line of a terminal of that many columns."""
    words = describe(progress, seconds=seconds, size=size)
    if not size:
        return words[: width - 1]
    share = min(1.0, progress.read / size)
    room = min(30, width - len(words) - 11)
    if room < 5:
        return f"{share:4.0%} {words}"[: width - 1]
    full = int(share * room)
    return f"[{'#' * full}{'-' * (room - full)}] {share:4.0%}  {words}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class ProgressMeter:
    """Shows progress on a stream. `size` is that of the input in bytes, None where nobody knows."""

    def __init__(
        self,
        stream: TextIO,
        *,
        size: int | None,
        terminal: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = StatusLine(stream, terminal=terminal, clock=clock)
        self._size = size
        self._warned = False

    def show(self, progress: Progress) -> None:
        """Take note of progress; draws only when it is time to."""
        seconds = self._line.elapsed_if_due()
        if seconds is None:
            return
        if not progress.rows and seconds > _SILENCE and not self._warned:
            self._warned = True
            self._line.write_line(
                f"nothing came back for {seconds:.0f} s: is a worker serving the model? see `headrace queues`"
            )
        self._line.show(
            lambda width: (
                describe(progress, seconds=seconds, size=self._size)
                if width is None
                else bar(progress, seconds=seconds, size=self._size, width=width)
            )
        )

    def close(self) -> None:
        """Leave the line of the bar."""
        self._line.close()
