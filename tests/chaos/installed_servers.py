"""The Redis servers of a machine, for scenarios with several versions."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.disk import SkipScenario
from tests.support.redis_servers import SERVERS


def find_installed(name: str) -> Path:
    """Return the server with this name in SERVERS. Raises SkipScenario with what to install."""
    find, reason = SERVERS[name]
    server = find()
    if server is None:
        raise SkipScenario(f"{reason}; `pip install -r requirements.lock` installs the wheels")
    return server
