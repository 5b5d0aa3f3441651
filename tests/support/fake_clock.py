"""A monotonic clock that a test moves."""

from __future__ import annotations


class FakeClock:
    """A clock in seconds. Call it for the time."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self._seconds = seconds

    def __call__(self) -> float:
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += seconds
