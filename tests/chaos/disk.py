"""A small disk of one's own, and why something cannot be played here."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


class LeftOut(Exception):
    """Why a scenario cannot be played here."""


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes at a folder, gone afterwards; nothing where the size is 0. Raises LeftOut."""
    if not size:
        yield
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True, timeout=10)
    if made.returncode:
        raise LeftOut(f"a small disk cannot be mounted here, which takes root: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=10)
