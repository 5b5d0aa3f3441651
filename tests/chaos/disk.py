"""A small disk for a scenario, and the exception for a scenario that cannot run on this machine."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


class SkipScenario(Exception):
    """The reason why a scenario cannot run on this machine."""


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a disk of `size` bytes at a folder during the block; 0 mounts none. Raises SkipScenario."""
    if not size:
        yield
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounting = subprocess.run(mount, capture_output=True, text=True, timeout=10)
    if mounting.returncode:
        raise SkipScenario(
            f"a small disk cannot be mounted here; only root can mount one: {mounting.stderr.strip()}"
        )
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=10)
