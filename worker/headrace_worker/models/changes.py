"""Decide whether aliases or pauses may have changed since they were last read, by the count of their changes.

The lease keeper reads the count once a second. What the count protects is read only when it has changed, or when
the count is not known.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

#: Seconds after which a count is not known any more: Redis has not answered since.
_VALID_SECONDS = 5.0
#: Seconds after which everything is read again, whatever the count says.
_REREAD_SECONDS = 600.0


class Count(msgspec.Struct, frozen=True):
    """A value of `Keys.changes`, None where the key does not exist, and when it was read."""

    value: bytes | None
    read_at: float


class Changes:
    """The count of changes, as last read. Thread-safe. `clock` is a monotonic clock in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._count: Count | None = None

    def record(self, value: bytes | None) -> None:
        """Record the count as it was just read."""
        self._count = Count(value, self.clock())

    def valid_count(self) -> Count | None:
        """Return the count; None if it is not known."""
        count = self._count
        return count if count is not None and self.clock() - count.read_at < _VALID_SECONDS else None


class ChangeReader:
    """One reader of what may have changed."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        #: The count before the last reading; None if it was not known.
        self._count: Count | None = None
        self._next_count: Count | None = None

    def must_read(self) -> bool:
        """Return whether to read. After a reading, call `record_read`: changes during it are not missed."""
        self._next_count = count = self._changes.valid_count()
        if count is None or self._count is None:
            return True
        return count.value != self._count.value or count.read_at - self._count.read_at > _REREAD_SECONDS

    def record_read(self) -> None:
        """Record that everything was read since `must_read`."""
        self._count = self._next_count
