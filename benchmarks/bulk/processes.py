"""Processor time and memory of a process and all its children, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, its living descendants, and the children each has waited for."""
    return sum(map(_ticks, descendants(pid))) / _TICKS


def pss_mb(pid: int) -> float:
    """Return the memory of a process and its descendants in megabytes; pages that they share count once."""
    return sum(map(_pss_kb, descendants(pid))) / 1024


def private_mb(pid: int) -> float:
    """Return the megabytes of a process and its descendants that belong to none other, without files."""
    return sum(map(_private_kb, descendants(pid))) / 1024


def peak_mb(pid: int) -> float:
    """Return the largest memory that a process had so far, in megabytes, with files; 0.0 if it has ended."""
    lines = _read(Path(f"/proc/{pid}/status")).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def descendants(pid: int) -> Iterator[int]:
    """Yield a process id and those of all its descendants."""
    yield pid
    for task in _list(Path(f"/proc/{pid}/task")):
        for child in _read(task / "children").split():
            yield from descendants(int(child))


def _ticks(pid: int) -> int:
    """Return user and system time in ticks, with those of ended children."""
    _, _, fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")
    return sum(map(int, fields.split()[11:15]))


def _pss_kb(pid: int) -> int:
    return _sum_kb(pid, "Pss:")


def _private_kb(pid: int) -> int:
    return _sum_kb(pid, "Private_Dirty:")


def _sum_kb(pid: int, name: str) -> int:
    lines = _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _read(file: Path) -> str:
    """Return the text of a file of /proc; nothing if the process has ended."""
    try:
        return file.read_text()
    except OSError:
        return ""
