"""Whose turn it is on a processor: the pool process that runs a claim goes before the event loop.

A pool process says that it has accepted a claim just before it runs it. Linux wakes the event loop on the same
processor, where it would run first: for half a millisecond, in which the claim waits. In the batch class
(sched(7)) it waits for a processor that is free, a few milliseconds at the most.
"""

from __future__ import annotations

import contextlib
import os

#: Whether this process, or the one it was forked from, gives way.
_gives_way = False


def lower_priority() -> None:
    """Let this thread, and what it starts, not interrupt others when it wakes; where it is in the usual class."""
    global _gives_way  # noqa: PLW0603  # of the process, as the class is
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or not permitted
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            _gives_way = True


def take_turns() -> None:
    """Let this process, forked from one that gives way, be in the usual class again."""
    if _gives_way:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
