"""End a worker's process at a named step of a claim's way, to see what survives. Not a part of Headrace.

A worker started with `--include tests.support.crash_points` and the repository in its PYTHONPATH dies once:

    CRASH_AT     the step, one of STEPS
    CRASH_WHOM   who dies: `self`, the process that takes the step; `main`, the main process; or `all` of them
    CRASH_FILE   made before, so that it happens once
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from headrace_worker.execution import predict, runner
from headrace_worker.transport.channel import ClaimingChannel
from headrace_worker.transport.lease_keeper import LeaseKeeper
from headrace_worker.transport.leases import Leases

_MAIN = os.getpid()

#: Each step: what is called there, and whether the process dies before or after it. The first and the last are the
#: main process's.
STEPS: dict[str, tuple[Any, str, bool]] = {
    "claimed": (ClaimingChannel, "_hand_over", True),
    "received": (runner.ClaimRunner, "run", True),
    "opened": (runner, "open_claim", False),
    "predicted": (predict, "run", False),
    "publishing": (Leases, "publish", True),
    "published": (Leases, "publish", False),
    "acknowledging": (LeaseKeeper, "acknowledge", True),
}


def die() -> None:
    """End whom CRASH_WHOM says, if nobody was ended yet."""
    try:
        os.close(os.open(os.environ["CRASH_FILE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    match os.environ.get("CRASH_WHOM", "self"):
        case "main":
            os.kill(_MAIN, signal.SIGKILL)
        case "all":
            os.killpg(os.getpgid(_MAIN), signal.SIGKILL)
        case _:
            os.kill(os.getpid(), signal.SIGKILL)


def _dying(call: Callable[..., Any], before: bool) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            die()
        result = call(*args, **kwargs)
        if not before:
            die()
        return result

    return wrapped


if step := os.environ.get("CRASH_AT"):
    _owner, _name, _before = STEPS[step]
    setattr(_owner, _name, _dying(getattr(_owner, _name), _before))
