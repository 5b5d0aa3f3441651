"""Replace the pool processes one by one, between claims, by forks of the main process as it is now.

    begin ──> one process more ──> [a free old one ends ──> a new one is forked] ... ──> the last ends ──> done

A process is forked with all that the main process has loaded, so that they share its memory; that is also how a
new version reaches them. There is one process more meanwhile, so that no job waits for a fork. An old process
that runs a claim runs it to its end.
"""

from __future__ import annotations

import threading
from typing import Any

from celery import bootsteps


class PoolReplacement:
    """Replaces the processes of one pool. `begin` and `wait` are for any thread, `turn` for the event loop."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._asked = False
        self._old: list[Any] = []
        #: Whether there is one process more than there should be.
        self._spare = False
        self._leaving: Any = None
        self._done = threading.Event()
        self._done.set()

    def for_pool(self, pool: Any) -> None:
        """Say which pool: Celery's of processes that its event loop drives, or None where there is none."""
        self._pool = pool

    def spare_the_loop(self, pool: Any) -> None:
        """Wait for no last words of a process that was ended free: Celery does, for 0.02 s of its event loop."""
        flush = getattr(pool, "process_flush_queues", None)

        def flush_others(process: Any) -> None:
            if flush is not None and process is not self._leaving:
                flush(process)

        if pool is not None:
            pool.process_flush_queues = flush_others

    def begin(self) -> None:
        """Replace every process there is when the event loop next turns."""
        if self._pool is not None:
            self._done.clear()
            self._asked = True

    def wait(self, seconds: float) -> bool:
        """Whether all are replaced, within that time: one may run a claim for long."""
        return self._done.wait(seconds)

    def step(self) -> None:
        """Do what can be done now; called whenever the event loop turns."""
        if self._done.is_set():
            return
        pool = self._pool
        if pool._state != 0 or pool._worker_handler._state != 0:  # noqa: SLF001  # it ends: billiard has no public word for it
            self._finish()
            return
        if self._asked:
            self._asked, self._old = False, list(pool._pool)  # noqa: SLF001  # nor for its processes
            if not self._spare:
                self._spare = True
                pool.grow(1)
                pool.maintain_pool()
        self._old = [process for process in self._old if process in pool._pool]  # noqa: SLF001  # as above
        if self._leaving in pool._pool or not _is_whole(pool):  # noqa: SLF001  # as above
            return
        self._leaving = None
        if free := next((process for process in self._old or pool._pool if _is_free(pool, process)), None):  # noqa: SLF001
            if len(self._old) <= 1:
                self._finish()
            _end(pool, free)
            self._leaving = free

    def _finish(self) -> None:
        if self._spare:
            self._spare = False
            self._pool._processes -= 1  # noqa: SLF001  # as `Pool.shrink` does, which chooses the process itself
            self._pool._putlock.shrink()  # noqa: SLF001  # as above
        self._old = []
        self._done.set()


def _is_whole(pool: Any) -> bool:
    """Whether every process is there and has said that it is ready."""
    processes = pool._pool  # noqa: SLF001  # as above
    return len(processes) >= pool._processes and all(one.inqW_fd in pool._all_inqueues for one in processes)  # noqa: SLF001


def _is_free(pool: Any, process: Any) -> bool:
    """Whether no claim runs in it, or is on its way to it."""
    fd = process.inqW_fd
    if fd in pool._busy_workers or fd in pool._active_writes:  # noqa: SLF001  # as above
        return False
    return not any(
        process in {job._write_to, job._scheduled_for} or process.pid in job.worker_pids()  # noqa: SLF001  # as above
        for job in list(pool._cache.values())  # noqa: SLF001  # as above
    )


def _end(pool: Any, process: Any) -> None:
    pool._busy_workers.add(process.inqW_fd)  # noqa: SLF001  # so that no claim is sent to it any more
    process.terminate_controlled()


class PoolReplacementStep(bootsteps.StartStopStep):
    """The worker's step that swaps. Set by the app: the `swap`."""

    requires = ("celery.worker.components:Pool",)
    swap = PoolReplacement()

    def start(self, worker: Any) -> None:
        """The pool has started, and its event loop has not."""
        self.swap.spare_the_loop(getattr(worker.pool, "_pool", None))

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """The event loop begins, or begins anew after a lost connection."""
        pool = getattr(worker.pool, "_pool", None)
        self.swap.for_pool(pool if hasattr(pool, "_all_inqueues") else None)
        hub.on_tick.add(self.swap.step)
