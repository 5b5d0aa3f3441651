"""The code of the previous release, for tests of old and new workers side by side."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

from tests.support import ROOT


class PreviousRelease(NamedTuple):
    """An extracted release."""

    #: Its tag, or the id of its commit.
    name: str
    #: The folders to put first in PYTHONPATH.
    folders: tuple[Path, ...]


def extract_previous_release(folder: Path) -> PreviousRelease | None:
    """Extract the code of the newest tag before this commit.

    Without a tag, it is the code before the last commit that changed the client or the worker. Returns None if the
    checkout has neither, as a shallow clone.
    """
    tag = _git("describe", "--tags", "--abbrev=0", "HEAD~1")
    changed = _git("log", "-1", "--format=%H", "--", "producer", "worker")
    name = tag or _git("rev-parse", "--short", "--verify", "--quiet", f"{changed}~1")
    if not name:
        return None
    archive = subprocess.run(
        ["git", "archive", name, "producer", "worker"], cwd=ROOT, capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as code:
        code.extractall(folder, filter="data")
    return PreviousRelease(name, (folder / "producer", folder / "worker"))


def _git(*arguments: str) -> str:
    """Return the output of a git command; empty if it fails."""
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else ""
