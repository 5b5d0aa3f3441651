"""The time of this machine, deadlines, and delays between tries."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
#: The first and the last moment that a datetime can hold, in unix milliseconds.
_FIRST_MS = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LAST_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
#: Doublings after which a delay no longer grows, so that it stays within a float.
_MAX_DOUBLINGS = 62


def utc_now() -> datetime:
    """Return the time of this machine, in UTC."""
    return datetime.now(UTC)


def from_unix_ms(unix_ms: float) -> datetime:
    """Return a moment from unix milliseconds, without rounding.

    Anything may be stored as a moment: one before the year 1, or after 9999, is the first or the last that a
    datetime can hold.
    """
    return _EPOCH + int(max(_FIRST_MS, min(_LAST_MS, unix_ms))) * _MILLISECOND


def to_unix_ms(moment: datetime) -> int:
    """Return the unix milliseconds of a moment, rounded down."""
    return (moment - _EPOCH) // _MILLISECOND


def decode_unix_ms(score: bytes | str | float) -> int:
    """Return the unix milliseconds in the score of a sorted set; the first or last for an infinite score."""
    return int(max(_FIRST_MS, min(_LAST_MS, float(score))))


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
