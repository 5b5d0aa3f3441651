"""The kinds of Celery's pool that a worker runs on.

With gevent and eventlet, each read of a socket may run another task, and prediction in C blocks them all: leases
are not renewed, and time limits do not hold.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.errors import SettingError

#: By the name of its module in `celery.concurrency`, or its name on the command line.
_SUPPORTED = {"prefork", "processes", "solo", "threads", "thread"}


def check_pool(pool: object) -> None:
    """Check the pool of Celery's option `--pool`: a name, a class, or None. Raises SettingError."""
    name = pool if isinstance(pool, str) else getattr(pool, "__module__", "").rpartition(".")[2]
    if pool and name not in _SUPPORTED:
        raise SettingError(
            f"a worker does not run on Celery's pool {name[:64]!r}: --pool is prefork (the default, for models "
            "that compute), solo (one job at a time, in one process) or threads (no time limits)"
        )


def find_pool(options: Sequence[str]) -> str | None:
    """Return the value of `--pool` among options for Celery; None if it is not there."""
    pool = None
    for index, option in enumerate(options):
        if option in {"-P", "--pool"}:
            pool = "".join(options[index + 1 : index + 2])
        elif option.startswith("--pool="):
            pool = option.removeprefix("--pool=")
        elif option.startswith("-P"):
            pool = option.removeprefix("-P")
    return pool
