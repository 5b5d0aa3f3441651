"""The number of threads that libraries of linear algebra and OpenMP start."""

from __future__ import annotations

import os

#: The variables in which these libraries look up how many threads to start.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def has_one_thread() -> bool:
    """Decide whether this process has no other thread, not even of a native library. False if not on Linux."""
    try:
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208  # names are enough
    except OSError:
        return False


def bound_threads(count: int) -> None:
    """Set the number of threads of libraries that are loaded from now on, in this process and its forks.

    It must be set before OpenBLAS is loaded. Set later, OpenBLAS still starts a thread for each core in each fork,
    and those occupy the processors for 30 ms before they find no work.
    """
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)
