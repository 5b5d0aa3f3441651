"""The children and the memory of a process, read from /proc."""

from __future__ import annotations

from pathlib import Path


def child_pids(pid: int) -> set[int]:
    """Return the process ids of the children of a process: a worker's pool."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def private_bytes(pid: int) -> int:
    """Return the bytes of memory that a process shares with no other."""
    return memory_bytes(pid, "Private_")


def memory_bytes(pid: int, kind: str) -> int:
    """Return the bytes of a process's memory of one kind: the start of a name in smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(kind))
