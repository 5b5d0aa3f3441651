"""The Redis servers of a machine, for scenarios with several versions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from headrace_worker.local.embedded_redis import find_redis
from tests.chaos.disk import SkipScenario
from tests.support.redis_servers import SERVERS


def find_installed(name: str) -> Path:
    """Return the server with this name in SERVERS. Raises SkipScenario with what to install."""
    find, reason = SERVERS[name]
    server = find()
    if server is None:
        raise SkipScenario(f"{reason}; `pip install -r requirements.lock` installs the wheels")
    return server


def redis_version(server: Path | None = None) -> str:
    """Return the version of a server; without one, of that which the scenarios use."""
    output = subprocess.run(
        [server or find_redis(), "--version"], capture_output=True, text=True, timeout=10
    ).stdout
    version = re.search(r"v=([\d.]+)", output)
    return version[1] if version else "0"


def debug_options(server: Path) -> list[str]:
    """Return the options that permit DEBUG SLEEP, which Redis 7 and later forbid by default."""
    return ["--enable-debug-command", "local"] if int(redis_version(server).split(".")[0]) >= 7 else []
