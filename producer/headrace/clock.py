"""The time of this machine: the moment, and deadlines."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the time of this machine, in UTC."""
    return datetime.now(UTC)


class Deadline:
    """A moment by which a wait is over; None is never."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, at least 0."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def remaining_or(self, other: float) -> float:
        """Seconds left, `other` at the most."""
        left = self.remaining()
        return other if left is None else min(left, other)
