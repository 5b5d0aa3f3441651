"""The children and the memory of a process, read from /proc, and signals to all of a worker."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def child_pids(pid: int) -> set[int]:
    """Return the process ids of the children of a process: a worker's pool."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def signal_worker(pid: int, number: int) -> None:
    """Send a signal to the main process of a worker and to its pool; to the process that calls this, last.

    Each pool process leads a process group of its own, so a signal to the group of the main process misses it.
    """
    pids = {pid}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            pids.update(map(int, task.read_text().split()))
    for each in sorted(pids, key=lambda each: each == os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(each), signal.Signals(number))


def private_bytes(pid: int) -> int:
    """Return the bytes of memory that a process shares with no other."""
    return memory_bytes(pid, "Private_")


def memory_bytes(pid: int, kind: str) -> int:
    """Return the bytes of a process's memory of one kind: the start of a name in smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(kind))
