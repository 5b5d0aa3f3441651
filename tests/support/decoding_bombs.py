"""Let a message of a client kill the process that decodes it, as a fault of a parser in C would.

Any worker started with `--include tests.support.decoding_bombs` obeys the marker `bomb:<kind>` in a message. It
needs the repository in its PYTHONPATH.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
from collections.abc import Callable
from typing import Any

from headrace_worker.execution import opening

#: The kinds of death of the process, and what each does.
BOMBS: dict[str, Callable[[], Any]] = {
    "segfault": lambda: ctypes.string_at(0),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "os._exit": lambda: os._exit(3),
    # No signal handler of Python interrupts a call of C.
    "endless": lambda: re.match(r"(a+)+$", "a" * 64 + "b"),
    "memory": lambda: bytearray(2**40),
}

_MARKER = re.compile(rb"bomb:([A-Za-z._]+)")


def marker_of(kind: str) -> str:
    """Return the text that makes a message a bomb of this kind."""
    return f"bomb:{kind}"


def _with_bomb(call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(message: bytes, *args: Any, **kwargs: Any) -> Any:
        if match := _MARKER.search(message):
            BOMBS[match[1].decode()]()
        return call(message, *args, **kwargs)

    return wrapped


for _name in ("parse", "parse_canvas"):
    setattr(opening, _name, _with_bomb(getattr(opening, _name)))
