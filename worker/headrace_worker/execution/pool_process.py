"""Limits of a pool process: its threads, its memory, and the signals that may end or interrupt it.

A model's code runs here. Whatever it does to its process ends with the process; the worker's main process then
requeues the jobs of the claim (`headrace_worker.process.supervision`).
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billiard.util import get_pdeathsig  # type: ignore[attr-defined]  # its stubs leave it out

from headrace.errors import SettingError
from headrace_worker.execution.scheduling import restore_priority

if TYPE_CHECKING:
    from celery import Celery

#: The fraction of the memory limit above which a process is replaced after its claim, and runs no further batch
#: after a MemoryError.
_SHORT_OF_MEMORY_FRACTION = 0.8
#: The exit code of a process that ran out of memory outside of a model.
_EXIT_OUT_OF_MEMORY = 71
#: The signal by which the main process reports that the soft time limit passed. It raises SoftTimeLimitExceeded.
_SOFT_LIMIT_SIGNAL = signal.SIGUSR1


def prepare(app: Celery[Any]) -> None:
    """Import and create in the main process what every pool process would otherwise: half of its start-up time."""
    app.backend  # noqa: B018  # importing it here saves the first claim from it
    with contextlib.suppress(OSError):
        get_pdeathsig()  # billiard may call cffi for it, which builds a parser of C


def isolate(memory_limit: int) -> None:
    """Put a forked process into a group of its own, and limit its memory to `memory_limit` bytes; 0 is no limit.

    The group lets the main process kill it together with all processes that a model starts.
    """
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    restore_priority()
    signal.pthread_sigmask(signal.SIG_BLOCK, {_SOFT_LIMIT_SIGNAL})
    if memory_limit:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, hard))


def check_memory_limit(memory_limit: int) -> None:
    """Check, once the models are loaded, that a limit leaves memory for jobs. Raises SettingError if not."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY and memory_limit > hard:
        raise SettingError(f"HEADRACE_MEMORY_LIMIT cannot be used: this process may use {hard} bytes at most")
    if memory_limit and (used := count_memory()) > _SHORT_OF_MEMORY_FRACTION * memory_limit:
        raise SettingError(
            f"HEADRACE_MEMORY_LIMIT cannot be used: with its models loaded, a process uses {used} bytes before "
            f"it runs a job; set at least {2 * used}, or serve fewer models"
        )


def compute_max_resident_kilobytes(memory_limit: int) -> int | None:
    """Return the resident memory at which Celery replaces a pool process after its claim; None is never."""
    return int(memory_limit * _SHORT_OF_MEMORY_FRACTION / 1024) or None


def is_short_of_memory() -> bool:
    """Return True if this process is near its limit: a MemoryError may be due to what another job has kept."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return limit != resource.RLIM_INFINITY and _memory_bytes()[1] > _SHORT_OF_MEMORY_FRACTION * limit


def count_memory() -> int:
    """Return the bytes that this process uses, resident or by the count of a memory limit; 0 without /proc."""
    return max(_memory_bytes())


def _memory_bytes() -> tuple[int, int]:
    """Return this process's resident bytes, and the bytes that RLIMIT_DATA counts; zeros without /proc."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0, 0
    return int(pages[1]) * resource.getpagesize(), int(pages[5]) * resource.getpagesize()


@contextlib.contextmanager
def handle_claim_signals() -> Iterator[None]:
    """Handle the signals of this process while a claim runs, and end the process if it runs out of memory.

    SIGTERM, which systemd sends to every process of a unit, is ignored: the main process decides when to stop.
    Celery would hand a MemoryError to the main process, which would end; this process ends in its place.
    """
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A soft limit that passed just after the last claim is not this one's. Ignoring the signal discards it.
    signal.signal(_SOFT_LIMIT_SIGNAL, signal.signal(_SOFT_LIMIT_SIGNAL, signal.SIG_IGN))
    try:
        yield
    except MemoryError:
        os.write(2, b"headrace: out of memory outside of a model; this pool process ends\n")
        os._exit(_EXIT_OUT_OF_MEMORY)
    finally:
        signal.signal(signal.SIGTERM, former)


@contextlib.contextmanager
def allow_interrupts() -> Iterator[None]:
    """Let a soft time limit interrupt the block. Elsewhere the signal is blocked, so as not to break a publish."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {_SOFT_LIMIT_SIGNAL})  # raises if the limit has already passed
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
