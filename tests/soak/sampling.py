"""Samples of memory and open file descriptors of processes, from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from tests.soak.verdict import Sample
from tests.support.processes import memory_bytes

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 2**20


def sample_process(kind: str, pid: int, *, other_bytes: int | None = None) -> Sample | None:
    """Return a sample of a process; None if it has ended, or just begins.

    Its other size is its proportional share of memory, unless `other_bytes` is another one.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  # quicker, and only counted
        share = memory_bytes(pid, "Pss:") if other_bytes is None else other_bytes
        if resident:
            return Sample(
                kind=kind,
                life=f"{kind} {pid}",
                at_second=time.monotonic(),
                rss_mib=resident / _MIB,
                descriptors=descriptors,
                other_mib=share / _MIB,
            )
    return None
