"""The limits of the container or service that this process runs in, from its control groups (cgroup v1 and v2).

A limit of any group above this process holds too. A container sees its own group as the root; a service of systemd
finds its group by the path in `/proc/self/cgroup`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import joblib

_ROOT, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
#: More processes than this are a mistake.
_MAX_CORES = 1024
#: Bytes from which on a limit of cgroup v1 is none: it says 2**63, rounded down to a page.
_UNLIMITED = 2**60


def count_cores(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int:
    """Return the cores that this process may use by its affinity and its quotas, rounded up: at least 1."""
    quotas = (math.ceil(quota) for quota in _read_quotas(root, membership))
    return max(1, min(int(joblib.cpu_count()), *quotas, _MAX_CORES))


def read_memory_limit(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int | None:
    """Return the bytes of memory that this container or service may use; None without a limit."""
    limits = list(_read_memory_limits(root, membership))
    return min(limits, default=None)


def _read_quotas(root: Path, membership: Path) -> Iterator[float]:
    for group in _groups(root, membership, ""):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    for group in _groups(root, membership, "cpu"):
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # -1 is no quota
            yield int(quota) / int(period)


def _read_memory_limits(root: Path, membership: Path) -> Iterator[int]:
    for controller, file in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        for group in _groups(root, membership, controller):
            limit = _read(group / file)
            if limit.isdigit() and int(limit) < _UNLIMITED:
                yield int(limit)


def _groups(root: Path, membership: Path, controller: str) -> Iterable[Path]:
    """Yield the folders of the groups of this process under a controller of cgroup v1; "" is cgroup v2."""
    mount = root / controller
    yield mount
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            parts = Path(path.strip("/")).parts
            for depth in range(1, len(parts) + 1):
                yield mount.joinpath(*parts[:depth])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
