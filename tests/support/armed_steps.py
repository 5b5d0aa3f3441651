"""Stop or kill a worker at a step of a claim that is chosen while the worker runs.

A worker started with `--include tests.support.armed_steps` looks at each step into the file `armed` in the folder
STEP_FOLDER. `Armed.write` writes it. The first process that has taken the step the given number of times renames
the file to `taken-<id of its main process>`, and sends the signal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from redis.connection import AbstractConnection

from headrace_worker.transport.blocking_claim import BlockingClaim
from headrace_worker.transport.channel import ClaimingChannel
from headrace_worker.transport.claim_states import State
from tests.support.crash_points import STEPS as CLAIM_STEPS
from tests.support.processes import signal_worker

Target = Literal["self", "main", "all"]
#: The processes that a signal is sent to: the one that takes the step, the main process, or all of the worker.
TARGETS: tuple[Target, ...] = ("self", "main", "all")
#: The variable with the folder of the file.
FOLDER_VARIABLE = "STEP_FOLDER"

_MAIN_PID = os.getpid()

#: The steps of a blocking claim: a lease is parked, and BLMOVE not sent; BLMOVE is sent, and not answered; a job
#: has arrived, and nobody knows of it. The main process takes them.
BLOCKING_STEPS = ("parked", "waiting", "arrived")
#: Before a command is sent to Redis on any connection of any process, and after a reply was read.
COMMAND_STEPS = ("sending", "answered")


class Armed(NamedTuple):
    """The content of the file: the step, and the signal."""

    #: Differs each time that a step is armed.
    number: int
    step: str
    #: The number of times that a process takes the step until it sends the signal.
    times: int
    target: Target
    signal: int

    def write(self, folder: Path) -> None:
        """Arm the step. The file appears whole."""
        draft = folder / "draft"
        draft.write_text(" ".join(map(str, self)))
        draft.rename(folder / "armed")

    @classmethod
    def read(cls, folder: Path) -> Armed | None:
        """Return the armed step; None if there is none."""
        try:
            number, step, times, target, signum = (folder / "armed").read_text().split()
        except FileNotFoundError:
            return None
        return cls(int(number), step, int(times), target, int(signum))  # type: ignore[arg-type]  # as written


class _StepCounter:
    """Counts how often this process has taken the armed step."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number, self._count = folder, 0, 0

    def take(self, step: str) -> None:
        """Count a step, and send the signal if it is time to."""
        armed = Armed.read(self._folder)
        if armed is None or armed.step != step:
            return
        if armed.number != self._number:
            self._number, self._count = armed.number, 0
        self._count += 1
        if self._count < armed.times:
            return
        try:
            (self._folder / "armed").rename(self._folder / f"taken-{_MAIN_PID}")
        except FileNotFoundError:
            return  # another process was first
        if armed.target == "all":
            signal_worker(_MAIN_PID, armed.signal)
        else:
            os.kill(_MAIN_PID if armed.target == "main" else os.getpid(), signal.Signals(armed.signal))


def _always(*_: Any) -> bool:
    return True


def _is_blocking(channel: Any, _result: Any) -> bool:
    return channel._claims.state is State.BLOCKING


def _has_job(_blocking: Any, claim: Any) -> bool:
    return claim is not None


#: For each step, the function that takes it, True if it is before the function, and a condition of its object and
#: its result for a step after it.
_POINTS: list[tuple[str, Any, str, bool, Callable[[Any, Any], bool]]] = [
    *((step, owner, name, before, _always) for step, (owner, name, before) in CLAIM_STEPS.items()),
    ("parked", BlockingClaim, "commands", True, _always),
    ("waiting", ClaimingChannel, "_brpop_start", False, _is_blocking),
    ("arrived", BlockingClaim, "receive", False, _has_job),
    ("sending", AbstractConnection, "send_packed_command", True, _always),
    ("answered", AbstractConnection, "read_response", False, _always),
]


def _with_step(
    counter: _StepCounter, step: str, call: Callable[..., Any], before: bool, is_due: Callable[[Any, Any], bool]
) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            counter.take(step)
        result = call(*args, **kwargs)
        if not before and is_due(args[0] if args else None, result):
            counter.take(step)
        return result

    return wrapped


if folder := os.environ.get(FOLDER_VARIABLE):
    for point in _POINTS:
        _step, _owner, _name, _before, _is_due = point
        _call = getattr(_owner, _name)
        setattr(_owner, _name, _with_step(_StepCounter(Path(folder)), _step, _call, _before, _is_due))
