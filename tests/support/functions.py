"""Functions of Redis in tests."""

from __future__ import annotations

from functools import partial

import redis

from headrace.connection.commands import execute, run
from headrace.connection.functions import InstalledFunctions, install_functions
from headrace.doctor.functions import load_scripts


def load_functions(admin: redis.Redis) -> InstalledFunctions:
    """Load the functions of this release, as `headrace redis install` does."""
    return run(partial(execute, admin), install_functions(load_scripts(), prune=False))


def count_script_calls(server: redis.Redis) -> int:
    """Return how often clients called a script since the statistics were reset, in whatever form."""
    stats = server.info("commandstats")
    forms = (stats.get(f"cmdstat_{form}", {}) for form in ("fcall", "evalsha", "eval"))
    return sum(form.get("calls", 0) - form.get("rejected_calls", 0) for form in forms)
