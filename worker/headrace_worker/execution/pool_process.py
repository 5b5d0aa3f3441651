"""What holds in a pool process: how much memory it may take, and what may end it.

A model's code runs here. What it does to its process ends with the process; what is left of the claim is for
the worker's main process to give back (`supervision`).
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
from headrace_worker.execution.scheduling import take_turns

if TYPE_CHECKING:
    from celery import Celery

#: Where libraries of linear algebra and OpenMP look how many threads they may take.
_THREADS_OF = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
#: The part of the memory limit beyond which a process is replaced after its claim, or takes no further risk.
_SHORT_AT = 0.8
#: The exit code of a process that ran out of memory outside of a model.
_EX_MEMORY = 71
#: How the main process says that the soft time limit has passed; SoftTimeLimitExceeded is raised then.
_SOFT_LIMIT = signal.SIGUSR1


def bound_threads(count: int) -> None:
    """Say how many threads libraries may take that are loaded from now on, in this process and its forks.

    OpenBLAS, when it is told so after it was loaded, starts those of every core in each process that was forked;
    they take processors for 30 ms, to see that there is nothing to do.
    """
    for name in _THREADS_OF:
        os.environ[name] = str(count)


def prepare(app: Celery[Any]) -> None:
    """Import and make in the main process what each pool process would anew: half of what one takes to start."""
    app.backend  # noqa: B018  # imports it; a task's tracer would, in the first claim
    with contextlib.suppress(OSError):
        get_pdeathsig()  # billiard may ask by cffi, which makes a parser of C for it


def isolate(memory_limit: int) -> None:
    """Make a forked process one that can be killed with all it starts, and whose memory has a limit in bytes."""
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    take_turns()
    signal.pthread_sigmask(signal.SIG_BLOCK, {_SOFT_LIMIT})
    if memory_limit:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, hard))


def check_memory_limit(memory_limit: int) -> None:
    """Refuse a limit that leaves no room for jobs, once the models are loaded. Raises SettingError."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY and memory_limit > hard:
        raise SettingError(f"HEADRACE_MEMORY_LIMIT cannot be used: this process may take {hard} bytes at the most")
    if memory_limit and (used := max(_memory())) > _SHORT_AT * memory_limit:
        raise SettingError(
            f"HEADRACE_MEMORY_LIMIT cannot be used: with its models loaded, a process takes {used} bytes before "
            f"it runs a job; give at least {2 * used}, or serve fewer models"
        )


def recycle_at(memory_limit: int) -> int | None:
    """Kilobytes of resident memory at which Celery replaces a pool process after its claim; None is never."""
    return int(memory_limit * _SHORT_AT / 1024) or None


def is_short_of_memory() -> bool:
    """Whether this process is near its limit: what fails now may be for want of what another job has kept."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return limit != resource.RLIM_INFINITY and _memory()[1] > _SHORT_AT * limit


def _memory() -> tuple[int, int]:
    """Bytes of this process that are resident, and that RLIMIT_DATA counts; zeros where no one tells."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0, 0
    return int(pages[1]) * resource.getpagesize(), int(pages[5]) * resource.getpagesize()


@contextlib.contextmanager
def running() -> Iterator[None]:
    """While a claim runs in this process.

    SIGTERM, which systemd sends to every process of a unit, waits: the main process says when to stop. A
    MemoryError that comes this far would end the main process, to which Celery hands it: this one ends instead.
    """
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A soft limit that passed when the last claim had just ended is not this one's: ignored, it is forgotten.
    signal.signal(_SOFT_LIMIT, signal.signal(_SOFT_LIMIT, signal.SIG_IGN))
    try:
        yield
    except MemoryError:
        os.write(2, b"headrace: out of memory outside of a model; this pool process ends\n")
        os._exit(_EX_MEMORY)
    finally:
        signal.signal(signal.SIGTERM, former)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While a soft time limit may interrupt this process; elsewhere it waits, not to break into a publish."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {_SOFT_LIMIT})  # raises, where it has passed already
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
