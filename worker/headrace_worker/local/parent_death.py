"""Child processes that end with this process, even when it is killed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from functools import cache


def with_parent_death_signal(command: Sequence[str]) -> list[str]:
    """Return a command whose process receives SIGTERM when this process ends.

    Linux sends the signal when the thread that started the process ends, so only the main thread can use it. In
    other threads, and without setpriv, the command is returned unchanged.
    """
    setpriv = _find_setpriv() if threading.current_thread() is threading.main_thread() else None
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else [*command]


@cache
def _find_setpriv() -> str | None:
    return shutil.which("setpriv")  # from util-linux; it executes the command under the same process id
