"""Kill a worker's process at a named step of a claim, to test what survives.

A worker started with `--include tests.support.crash_points` is killed once. It needs the repository in its
PYTHONPATH, and these variables:

    CRASH_AT        the step, one of STEPS or FOLLOW_UP_STEPS
    CRASH_PROCESS   the process to kill: `self`, which takes the step; `main`, the main process; or `all` processes
    CRASH_FILE      a file that is created before the kill, so that it happens once
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from headrace_worker.execution import predict, runner
from headrace_worker.execution.follow_up_sender import FollowUpSender
from headrace_worker.transport.channel import ClaimingChannel
from headrace_worker.transport.lease_keeper import LeaseKeeper
from headrace_worker.transport.leases import Leases
from tests.support.processes import signal_worker

_MAIN_PID = os.getpid()

#: For each step, the function that takes it, and True to kill the process before it, False for after. The main
#: process takes the first and the last step.
STEPS: dict[str, tuple[Any, str, bool]] = {
    "claimed": (ClaimingChannel, "_deliver_jobs", True),
    "received": (runner.ClaimRunner, "run", True),
    "opened": (runner, "open_claim", False),
    "predicted": (predict, "run", False),
    "publishing": (Leases, "publish", True),
    "published": (Leases, "publish", False),
    "acknowledging": (LeaseKeeper, "acknowledge", True),
}
#: The steps after the outcomes of jobs that are followed by tasks: what follows the first was sent; the result of
#: the first was added to its chord.
FOLLOW_UP_STEPS: dict[str, tuple[Any, str, bool]] = {
    "sent": (FollowUpSender, "_send", False),
    "added": (FollowUpSender, "_add_to_chord", False),
}


def kill_once() -> None:
    """Kill the process or processes that CRASH_PROCESS names, unless that has happened before."""
    try:
        os.close(os.open(os.environ["CRASH_FILE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    match os.environ.get("CRASH_PROCESS", "self"):
        case "main":
            os.kill(_MAIN_PID, signal.SIGKILL)
        case "all":
            signal_worker(_MAIN_PID, signal.SIGKILL)
        case _:
            os.kill(os.getpid(), signal.SIGKILL)


def _with_kill(call: Callable[..., Any], before: bool) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            kill_once()
        result = call(*args, **kwargs)
        if not before:
            kill_once()
        return result

    return wrapped


if step := os.environ.get("CRASH_AT"):
    _owner, _name, _before = (STEPS | FOLLOW_UP_STEPS)[step]
    setattr(_owner, _name, _with_kill(getattr(_owner, _name), _before))
