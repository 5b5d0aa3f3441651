"""The moment at which the current call must have ended: of this thread, or of this asyncio task.

redis-py passes no deadline to its sockets, and a timeout for each read does not bound a reply that trickles. So
the moment is a context variable, which the connections of `headrace.connection.bounded` heed in every step: the
look-up of a host, the connection, the handshakes, each read and write.

    with limit_call(2.0):
        ...                 # with every block inside, two seconds at most
"""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from types import TracebackType

#: Seconds of the monotonic clock; None without a limit.
_END: ContextVar[float | None] = ContextVar("headrace_call_end", default=None)


class limit_call:  # noqa: N801  # used as a verb: a context manager that costs less than a generator
    """Let the block end within `seconds`, and no later than the blocks around it. None sets no limit."""

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._token: Token[float | None] | None = None

    def __enter__(self) -> None:
        if self._seconds is None:
            return
        end, outer = time.monotonic() + self._seconds, _END.get()
        self._token = _END.set(end if outer is None else min(end, outer))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _END.reset(self._token)


def remaining_seconds() -> float | None:
    """Return the seconds that the current call has left, at least 0; None without a limit."""
    end = _END.get()
    return None if end is None else max(0.0, end - time.monotonic())


def within_limit(seconds: float | None) -> float | None:
    """Return a timeout, shortened to what the current call has left. None is no limit."""
    remaining = remaining_seconds()
    if remaining is None or (seconds is not None and seconds < remaining):
        return seconds
    return remaining
