"""A notifier that is killed at a named step, to test what survives; run it as a module.

It needs the repository in its PYTHONPATH, and these variables:

    CRASH_AT     the step, one of STEPS
    CRASH_AFTER  how often the step is taken before the one at which the process is killed
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from headrace_gateway.notify import deliver
from headrace_gateway.notify.cli import notify
from headrace_gateway.notify.storage import NoticeStore

#: For each step, the coroutine function that takes it, and True to kill the process before it, False for after.
STEPS: dict[str, tuple[Any, str, bool]] = {
    "taking": (NoticeStore, "take", True),
    "taken": (NoticeStore, "take", False),
    "read": (NoticeStore, "read_outcome", False),
    "posting": (deliver, "post", True),
    "posted": (deliver, "post", False),
    "finishing": (NoticeStore, "finish", True),
    "finished": (NoticeStore, "finish", False),
    "postponing": (NoticeStore, "postpone", True),
    "postponed": (NoticeStore, "postpone", False),
    "burying": (NoticeStore, "bury", True),
    "buried": (NoticeStore, "bury", False),
}
#: The steps of a notice that its endpoint takes at once.
DELIVERY_STEPS = ("taking", "taken", "read", "posting", "posted", "finishing", "finished")


def _with_kill(call: Callable[..., Any], before: bool, after: int) -> Callable[..., Any]:
    calls = 0

    def kill() -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            os.kill(os.getpid(), signal.SIGKILL)

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            kill()
        result = await call(*args, **kwargs)
        if not before and not _is_empty(result):
            kill()
        return result

    return wrapped


def _is_empty(result: Any) -> bool:
    """Return True for a claim of no notices."""
    return getattr(result, "notices", None) == []


if __name__ == "__main__":
    _owner, _name, _before = STEPS[os.environ["CRASH_AT"]]
    setattr(_owner, _name, _with_kill(getattr(_owner, _name), _before, int(os.environ.get("CRASH_AFTER", "0"))))
    notify()
