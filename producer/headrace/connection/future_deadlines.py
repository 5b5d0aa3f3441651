"""Deadlines of many asyncio futures with one timer: a timer for each would cost more than the wait itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

Expire = Callable[[asyncio.Future[Any]], object]


class FutureDeadlines:
    """Calls `expire` with each future that is not done at its deadline. Belongs to one event loop."""

    def __init__(self, expire: Expire) -> None:
        self._expire = expire
        self._ends: dict[asyncio.Future[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, future: asyncio.Future[Any], seconds: float) -> None:
        """Let a future expire in `seconds`, unless it is removed before."""
        loop = future.get_loop()
        end = loop.time() + max(seconds, 0.0)
        self._ends[future] = end
        if self._timer is None or end < self._timer.when():
            self._set_timer(loop, end)

    def remove(self, future: asyncio.Future[Any]) -> None:
        """Forget a future. The timer stays: it finds nothing to do, or the next deadline."""
        self._ends.pop(future, None)

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop, end: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(end, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for future in [future for future, end in self._ends.items() if end <= now]:
            del self._ends[future]
            if not future.done():
                self._expire(future)
        if self._ends:
            self._set_timer(loop, min(self._ends.values()))
