"""The loading of versions in the pool processes, told to the main process in memory that they share.

A process that dies while it loads is replaced, and its successor would die too. So the successors of a number that
was lost several times in a row load nothing, and the worker is not ready.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Collection

from billiard.process import current_process

from headrace_worker.telemetry.loops import LoopStatus

#: The process id, the number of loads that began and did not end, and 1 if this process refused a version.
_SLOT = struct.Struct("=qii")
#: Processes that can be told apart: the pool numbers its processes from 0 and uses each number again.
_SLOTS = 1024
#: Processes of one number that may be lost in a row while they load.
_MAX_LOST = 3


class PoolLoads:
    """The main process makes it before the pool forks. `pids` returns the ids of the pool's processes.

    It is a part of the worker's health, as a loop is (`telemetry.loops`).
    """

    def __init__(self, pids: Callable[[], Collection[int]]) -> None:
        self.name, self._pids = "pool-models", pids
        self._memory = mmap.mmap(-1, _SLOT.size * _SLOTS)

    def begin(self) -> bool:
        """Record that this pool process begins to load. Return False if it must not: the last ones were lost."""
        _, lost, _ = _SLOT.unpack_from(self._memory, self._offset)
        _SLOT.pack_into(self._memory, self._offset, os.getpid(), min(lost + 1, _MAX_LOST), 0)
        return bool(lost < _MAX_LOST)

    def end(self, *, refused: bool) -> None:
        """Record that this pool process has loaded all that it can; `refused` if it could not load a version."""
        _SLOT.pack_into(self._memory, self._offset, os.getpid(), 0, int(refused))

    @property
    def _offset(self) -> int:
        return _SLOT.size * (int(getattr(current_process(), "index", 0)) % _SLOTS)

    def status(self) -> LoopStatus | None:
        """Return whether the present processes have all versions; None if they load none."""
        pids = set(self._pids())
        refusals = [refused for pid, _, refused in _SLOT.iter_unpack(self._memory[:]) if pid in pids]
        if not refusals:
            return None
        problem = None
        if any(refusals):
            problem = (
                f"{sum(refusals)} of {len(pids)} pool processes could not load a version that is loaded after the "
                "fork; the log says why"
            )
        return LoopStatus(name=self.name, age_seconds=0.0, problem=problem)
