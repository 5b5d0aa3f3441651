"""Child processes that end with us, also where we are killed and can stop nothing."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from functools import cache


def with_parent_death_signal(command: Sequence[str]) -> list[str]:
    """A command whose process is sent SIGTERM when this one has ended. As it was off Linux, and in other threads.

    Linux sends the signal when the thread that started the process ends: only the main thread's end is ours.
    """
    found = _setpriv() if threading.current_thread() is threading.main_thread() else None
    return [found, "--pdeathsig", "TERM", "--", *command] if found else [*command]


@cache
def _setpriv() -> str | None:
    return shutil.which("setpriv")  # of util-linux; it becomes the command, under the same process id
