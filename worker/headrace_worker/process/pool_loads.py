"""The loading of versions in the pool processes, told to the main process in memory that they share.

A process that dies while it loads is replaced, and its successor would die too. So the successors of a number that
was lost several times in a row load nothing, and the worker is not ready.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from headrace_worker.telemetry.loops import LoopStatus
from headrace_worker.telemetry.pool_memory import PoolMemory

#: The number of loads that began and did not end, and 1 if this process refused a version.
_FIELDS = "ii"
#: Processes of one number that may be lost in a row while they load.
_MAX_LOST = 3


class PoolLoads:
    """The main process makes it before the pool forks. `pids` returns the ids of the pool's processes.

    It is a part of the worker's health, as a loop is (`telemetry.loops`).
    """

    def __init__(self, pids: Callable[[], Collection[int]]) -> None:
        self.name, self._pids = "pool-models", pids
        self._memory = PoolMemory(_FIELDS)

    def begin(self) -> bool:
        """Record that this pool process begins to load. Return False if it must not: the last ones were lost."""
        lost, _ = self._memory.read()
        self._memory.write(min(lost + 1, _MAX_LOST), 0)
        return bool(lost < _MAX_LOST)

    def end(self, *, refused: bool) -> None:
        """Record that this pool process has loaded all that it can; `refused` if it could not load a version."""
        self._memory.write(0, int(refused))

    def status(self) -> LoopStatus | None:
        """Return whether the present processes have all versions; None if they load none."""
        pids = set(self._pids())
        refusals = [refused for pid, _, refused in self._memory.records() if pid in pids]
        if not refusals:
            return None
        problem = None
        if any(refusals):
            problem = (
                f"{sum(refusals)} of {len(pids)} pool processes could not load a version that is loaded after the "
                "fork; the log says why"
            )
        return LoopStatus(name=self.name, age_seconds=0.0, problem=problem)
