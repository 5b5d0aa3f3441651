"""The time of this machine, deadlines, and delays between tries."""

from __future__ import annotations

import time
from datetime import UTC, datetime

#: Doublings after which a delay no longer grows, so that it stays within a float.
_MAX_DOUBLINGS = 62


def utc_now() -> datetime:
    """Return the time of this machine, in UTC."""
    return datetime.now(UTC)


def exponential_delay(tries: int, *, first: float, longest: float) -> float:
    """Return the delay after the given number of tries: `first` after one, twice as long after each further one.

    It is `longest` at most, in the same unit.
    """
    return min(longest, first * 2.0 ** min(tries - 1, _MAX_DOUBLINGS))


class Deadline:
    """The end of a wait of `timeout` seconds that begins now. None: the wait has no end."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Return the remaining seconds, at least 0; None if the wait has no end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def remaining_or(self, limit: float) -> float:
        """Return the remaining seconds, `limit` at most."""
        remaining = self.remaining()
        return limit if remaining is None else min(remaining, limit)
