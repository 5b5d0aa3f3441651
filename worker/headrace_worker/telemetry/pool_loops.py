"""The health of loops that run in every pool process: they take work from a queue, item by item.

A process notes since when work waits, in memory that it shares with the main process. Work that waits for long
means that the loop is dead or blocked. A loop without work is neither, while its process computes for an hour.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator

from headrace_worker.telemetry.loops import LoopStatus
from headrace_worker.telemetry.pool_memory import PoolMemory

#: The monotonic seconds since which work waits: 0 if none does. Processes share the clock.
_FIELDS = "d"


class WorkClock:
    """The side of one pool process."""

    def __init__(self, memory: PoolMemory, clock: Callable[[], float]) -> None:
        self._memory, self._clock = memory, clock
        self.mark(waiting=False)

    def mark(self, *, waiting: bool) -> None:
        """Record that the loop makes progress; `waiting` is False if it has nothing left to do."""
        self._memory.write(self._clock() if waiting else 0.0)


class PoolLoop:
    """The side of the main process, which makes it before the pool forks.

    `pids` returns the ids of the pool's processes. The loop is late if work has waited for `late_after` seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        late_after: float,
        pids: Callable[[], Collection[int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self._late_after, self._pids, self._clock = name, late_after, pids, clock
        self._memory = PoolMemory(_FIELDS)

    def work_clock(self) -> WorkClock:
        """Return the clock of this process, a pool process or the main process."""
        return WorkClock(self._memory, self._clock)

    def status(self) -> LoopStatus | None:
        """Return the state of the process whose work waits longest; None before there is a loop."""
        now, starts = self._clock(), list(self._waiting_since())
        if not starts:
            return None
        age, problem = max(now - since if since else 0.0 for since in starts), None
        if age > self._late_after:
            problem = f"the loop `{self.name}` of a pool process has done nothing for {age:.0f} s, and work waits"
        return LoopStatus(name=self.name, age_seconds=age, problem=problem)

    def _waiting_since(self) -> Iterator[float]:
        pids = {os.getpid(), *self._pids()}
        for pid, since in self._memory.records():
            if pid in pids:
                yield since
