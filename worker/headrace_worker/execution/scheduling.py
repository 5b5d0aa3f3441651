"""Give a pool process that runs a claim precedence over the event loop on the same processor.

A pool process accepts a claim just before it runs it. That wakes the event loop on the same processor, where Linux
would run it first: for half a millisecond, while the claim waits. A process of the batch class (sched(7)) does not
preempt others when it wakes; the event loop then waits for a free processor, a few milliseconds at most.
"""

from __future__ import annotations

import contextlib
import os

#: True if lower_priority() has changed this process, or the process it was forked from.
_is_lowered = False


def lower_priority() -> None:
    """Put this thread, and the threads it starts, into the batch class, if it is in the normal class."""
    global _is_lowered  # noqa: PLW0603  # the scheduling class is the process's too
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or not permitted
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            _is_lowered = True


def restore_priority() -> None:
    """Return a process that was forked from one with lowered priority to the normal class."""
    if _is_lowered:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
