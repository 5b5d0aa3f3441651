"""The jobs of the last hour by model and version, minute by minute, from the events that Flower receives.

Its memory has a bound: an hour of minutes for the models and versions that were active last, and a sample of their
waits.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec

#: Minutes that are stored, models with their versions, and waits of one minute.
MINUTES, _MAX_SERIES, _MAX_WAITS = 60, 200, 40


class Minute(msgspec.Struct):
    """The jobs of one model and version in one minute."""

    finished: int = 0
    failed: int = 0
    #: Seconds that jobs waited: a sample of them.
    waits: list[float] = []
    #: The number of waits, of which `waits` is a sample.
    wait_count: int = 0
    #: Jobs that waited in the queue, at a moment of this minute; None where nobody looked.
    depth: int | None = None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A value for each minute of the last hour, the present one last; None where there is none."""

    jobs_per_second: tuple[float, ...]
    failed: tuple[int, ...]
    wait_p50: tuple[float | None, ...]
    wait_p95: tuple[float | None, ...]
    depth: tuple[int | None, ...]

    @property
    def is_active(self) -> bool:
        """True if a job waited, was received or finished."""
        return find_largest(self.jobs_per_second, self.wait_p95, self.depth) > 0


class LastHour:
    """Counts jobs by model, version and minute. `clock` returns unix time in seconds. Two threads use it."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.Lock()
        #: The least recently active first. The version "" is all versions of a model.
        self._minutes: OrderedDict[tuple[str, str], dict[int, Minute]] = OrderedDict()

    def record_finished(self, model: str, version: str | None, *, failed: bool) -> None:
        """Count a job that succeeded or failed."""
        with self._lock:
            for minute in self._present(model, version):
                minute.finished += 1
                minute.failed += failed

    def record_wait(self, model: str, version: str | None, seconds: float) -> None:
        """Add the wait of a job that a worker has received."""
        with self._lock:
            for minute in self._present(model, version):
                minute.wait_count += 1
                if len(minute.waits) < _MAX_WAITS:
                    minute.waits.append(seconds)
                elif (index := random.randrange(minute.wait_count)) < _MAX_WAITS:  # noqa: S311  # a sample, no secret
                    minute.waits[index] = seconds

    def record_depth(self, model: str, depth: int) -> None:
        """Store the number of waiting jobs of a model."""
        with self._lock:
            for minute in self._present(model, None):
                minute.depth = depth

    def versions(self, model: str) -> list[str]:
        """Return the versions of a model that were active in the last hour, the newest first."""
        first = self._number() - MINUTES
        with self._lock:
            names = [
                version
                for (name, version), minutes in self._minutes.items()
                if name == model and version and max(minutes, default=0) > first
            ]
        return sorted(names, key=lambda version: (version.isdecimal(), len(version), version), reverse=True)

    def names(self) -> list[tuple[str, str]]:
        """Return models and versions that were active in the last hour, sorted; "" is all versions of a model."""
        first = self._number() - MINUTES
        with self._lock:
            return sorted(name for name, minutes in self._minutes.items() if max(minutes, default=0) > first)

    def start(self) -> int:
        """Return the beginning of the first minute of the last hour, in unix seconds."""
        return 60 * (self._number() - MINUTES + 1)

    def read(self, model: str, version: str = "") -> Series:
        """Return the last hour of a model, or of one of its versions."""
        with self._lock:
            stored = self._minutes.get((model, version), {})
            last = self._number()
            minutes = [stored.get(number, Minute()) for number in range(last - MINUTES + 1, last + 1)]
            elapsed = max(1.0, self._clock() - 60 * last)
            spans = [60.0] * (MINUTES - 1) + [elapsed]
            return Series(
                jobs_per_second=tuple(minute.finished / span for minute, span in zip(minutes, spans, strict=True)),
                failed=tuple(minute.failed for minute in minutes),
                wait_p50=tuple(_quantile(minute.waits, 0.5) for minute in minutes),
                wait_p95=tuple(_quantile(minute.waits, 0.95) for minute in minutes),
                depth=tuple(minute.depth for minute in minutes),
            )

    def size(self) -> tuple[int, int, int]:
        """Return the numbers of series, of minutes and of waits that are stored."""
        with self._lock:
            minutes = [minute for stored in self._minutes.values() for minute in stored.values()]
            return len(self._minutes), len(minutes), sum(len(minute.waits) for minute in minutes)

    def _number(self) -> int:
        return int(self._clock() // 60)

    def _present(self, model: str, version: str | None) -> Iterator[Minute]:
        """Yield the present minute of a model, and of its version."""
        number = self._number()
        for name in [(model, ""), *([(model, version)] if version else [])]:
            minutes = self._minutes.setdefault(name, {})
            self._minutes.move_to_end(name)
            if number not in minutes:
                for old in [stored for stored in minutes if stored <= number - MINUTES]:
                    del minutes[old]
                minutes[number] = Minute()
            yield minutes[number]
        while len(self._minutes) > _MAX_SERIES:
            self._minutes.popitem(last=False)


def _quantile(values: list[float], fraction: float) -> float | None:
    return sorted(values)[min(int(fraction * len(values)), len(values) - 1)] if values else None


def draw_line(values: tuple[float | None, ...], largest: float, width: int = 180, height: int = 36) -> str:
    """Return the points of a chart as the path of an SVG: `M0 36L3 12`; a gap where there is no value."""
    scale, step = (height - 2) / (largest or 1), width / max(1, len(values) - 1)
    parts: list[str] = []
    is_down = False
    for index, value in enumerate(values):
        if value is None:
            is_down = False
            continue
        point = f"{index * step:.1f} {height - 1 - value * scale:.1f}"
        # A value alone between two gaps is a dot: a line of no length with round ends.
        parts.append(f"L{point}" if is_down else f"M{point}L{point}")
        is_down = True
    return "".join(parts)


def find_largest(*series: tuple[float | None, ...]) -> float:
    """Return the largest value, 0 where there is none."""
    return max((value for values in series for value in values if value is not None), default=0.0)
