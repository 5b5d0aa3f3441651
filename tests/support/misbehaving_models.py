"""What a model can do to the process it runs in: endless loops, hard ends, greed, exceptions nobody expects."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

#: Kept beyond the call: memory that a model never gives back.
_HOARD: list[Any] = []


def loop() -> None:
    """Without end, in Python; what interrupts it is swallowed."""
    while True:
        try:
            while True:
                pass
        except BaseException:  # noqa: BLE001  # it is evil
            pass


def wait() -> None:
    """Without end, in Python."""
    while True:
        pass


def spin() -> None:
    """Without end, in C, which no signal handler of Python's interrupts."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def kill() -> None:
    """As the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    """Read what is not there."""
    ctypes.string_at(0)


def leave() -> None:
    """End the process as if all were well."""
    os._exit(0)


def fail() -> None:
    """End the process as if all were not."""
    os._exit(3)


def take() -> None:
    """More memory than there is, at once."""
    np.ones(1 << 40)


def hoard() -> None:
    """All memory, bit by bit, and never give it back."""
    while True:
        _HOARD.append(np.empty(1 << 22))  # taken, but not touched: the machine has better uses for it


def fill() -> None:
    """The whole disk for temporary files, and leave it so."""
    descriptor, _ = tempfile.mkstemp()
    while True:
        os.write(descriptor, bytes(1 << 16))


def recurse() -> None:
    """Deeper than Python goes."""
    recurse()


def leave_politely() -> None:
    """Ask Python to end the process."""
    sys.exit(0)


def interrupt() -> None:
    """Pretend that a person pressed Ctrl-C."""
    raise KeyboardInterrupt


def close() -> None:
    """Raise what ends generators."""
    raise GeneratorExit


#: What a row can tell the model to do, by the number in its second place. Those below 3 are `claim_models`' own.
MISDEEDS: dict[int, Callable[[], None]] = dict(
    enumerate(
        [
            loop,
            wait,
            spin,
            crash,
            leave,
            fail,
            take,
            hoard,
            fill,
            recurse,
            leave_politely,
            interrupt,
            close,
            kill,
        ],
        start=3,
    )
)
_NUMBERS = {misdeed: number for number, misdeed in MISDEEDS.items()}


def number_of(misdeed: Callable[[], None]) -> int:
    """What to put in a row."""
    return _NUMBERS[misdeed]
