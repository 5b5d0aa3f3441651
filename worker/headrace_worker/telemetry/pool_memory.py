"""A record of each pool process, in memory that the processes share with the main process."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any

from billiard.process import current_process

#: Processes that can be told apart: the pool numbers its processes from 0 and uses each number again.
_SLOTS = 1024


class PoolMemory:
    """The main process makes it before the pool forks. `fields` is the format of a record, as `struct` has it.

    A record holds the id of the process that wrote it. A process finds the record of its predecessor, the process
    that had its number in the pool before.
    """

    def __init__(self, fields: str) -> None:
        self._record = struct.Struct(f"=q{fields}")
        self._memory = mmap.mmap(-1, self._record.size * _SLOTS)

    def read(self) -> tuple[Any, ...]:
        """Return the record of this process, or of its predecessor: zeros if there is none."""
        return self._record.unpack_from(self._memory, self._offset())[1:]

    def write(self, *values: float) -> None:
        """Replace the record of this process, a pool process or the main process."""
        self._record.pack_into(self._memory, self._offset(), os.getpid(), *values)

    def records(self) -> Iterator[tuple[Any, ...]]:
        """Yield every record: the id of its process, 0 where none has written, and the values."""
        return self._record.iter_unpack(self._memory[:])

    def _offset(self) -> int:
        return self._record.size * (int(getattr(current_process(), "index", 0)) % _SLOTS)
