"""The progress of a batch: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

import msgspec

from headrace.status_line import StatusLine
from headrace.text import format_clock

#: Seconds without a finished row after which the meter asks whether a worker runs.
_SILENCE_SECONDS = 15.0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The rows written so far, and the bytes of the input read for them."""

    rows: int = 0
    failed: int = 0
    bytes_read: int = 0


def describe_progress(progress: Progress, *, seconds: float, size: int | None) -> str:
    """Return the progress as text: rows, failures, rate and, if the input's size is known, the remaining time."""
    rate = progress.rows / seconds if seconds > 0 else 0.0
    texts = [f"{progress.rows:,} rows done", f"{progress.failed:,} failed", f"{rate:,.0f} rows/s"]
    if size and 0 < progress.bytes_read < size:
        remaining = seconds * (size - progress.bytes_read) / progress.bytes_read
        texts.append(f"{format_clock(remaining)} left")
    return ", ".join(texts)


def format_bar(progress: Progress, *, seconds: float, size: int | None, width: int) -> str:
    """Return the progress as one line of a terminal of `width` columns."""
    text = describe_progress(progress, seconds=seconds, size=size)
    if not size:
        return text[: width - 1]
    fraction = min(1.0, progress.bytes_read / size)
    bar_width = min(30, width - len(text) - 11)
    if bar_width < 5:
        return f"{fraction:4.0%} {text}"[: width - 1]
    filled = int(fraction * bar_width)
    return f"[{'#' * filled}{'-' * (bar_width - filled)}] {fraction:4.0%}  {text}"


class ProgressMeter:
    """Shows progress on a stream. `size` is the input's size in bytes, None where it is unknown."""

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
        """Show the progress if it is time to draw again."""
        seconds = self._line.elapsed_if_due()
        if seconds is None:
            return
        if not progress.rows and seconds > _SILENCE_SECONDS and not self._warned:
            self._warned = True
            self._line.write_line(
                f"no row is finished after {seconds:.0f} s: is a worker serving the model? see `headrace queues`"
            )
        self._line.show(
            lambda width: (
                describe_progress(progress, seconds=seconds, size=self._size)
                if width is None
                else format_bar(progress, seconds=seconds, size=self._size, width=width)
            )
        )

    def close(self) -> None:
        """Remove the bar from the terminal."""
        self._line.close()
