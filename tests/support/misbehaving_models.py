"""Actions by which a model harms the process that runs it: endless loops, exits, greed, unexpected exceptions."""

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

#: Memory that is never freed.
_HOARD: list[Any] = []


def loop_swallowing_exceptions() -> None:
    """Loop in Python without end, and swallow every exception that interrupts it."""
    while True:
        try:
            while True:
                pass
        except BaseException:  # noqa: BLE001  # to swallow everything is the purpose
            pass


def loop() -> None:
    """Loop in Python without end."""
    while True:
        pass


def loop_in_c() -> None:
    """Loop in C without end. No signal handler of Python interrupts it."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def kill_by_signal() -> None:
    """Kill the process as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    """Read from address 0."""
    ctypes.string_at(0)


def exit_with_success() -> None:
    """Exit at once with code 0."""
    os._exit(0)


def exit_with_failure() -> None:
    """Exit at once with code 3."""
    os._exit(3)


def allocate_at_once() -> None:
    """Allocate more memory than the machine has, in one array."""
    np.ones(1 << 40)


def allocate_gradually() -> None:
    """Allocate all memory in small arrays, and never free it."""
    while True:
        _HOARD.append(np.empty(1 << 22))  # allocated but not touched, so that the machine loses nothing


def fill_disk() -> None:
    """Fill the disk for temporary files, and leave it full."""
    descriptor, _ = tempfile.mkstemp()
    while True:
        os.write(descriptor, bytes(1 << 16))


def recurse() -> None:
    """Recurse beyond Python's limit."""
    recurse()


def raise_system_exit() -> None:
    """Ask Python to end the process."""
    sys.exit(0)


def raise_keyboard_interrupt() -> None:
    """Raise the exception of Ctrl-C."""
    raise KeyboardInterrupt


def raise_generator_exit() -> None:
    """Raise the exception that closes generators."""
    raise GeneratorExit


#: The actions by the number in the second column of a row. The numbers below 3 are those of `claim_models`.
ACTIONS: dict[int, Callable[[], None]] = dict(
    enumerate(
        [
            loop_swallowing_exceptions,
            loop,
            loop_in_c,
            segfault,
            exit_with_success,
            exit_with_failure,
            allocate_at_once,
            allocate_gradually,
            fill_disk,
            recurse,
            raise_system_exit,
            raise_keyboard_interrupt,
            raise_generator_exit,
            kill_by_signal,
        ],
        start=3,
    )
)
_NUMBERS = {action: number for number, action in ACTIONS.items()}


def action_number(action: Callable[[], None]) -> int:
    """Return the number of an action, for the second column of a row."""
    return _NUMBERS[action]
