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
