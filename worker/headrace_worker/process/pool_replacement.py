"""Replace the pool processes one by one, between claims, by forks of the main process in its present state.

    begin ──> one extra process ──> [a free old one ends ──> a new one is forked] ... ──> the last ends ──> done

A fork shares the memory of all that the main process has loaded; that is also how a new version reaches the pool.
An extra process runs meanwhile, so that no job waits for a fork. An old process ends after its present claim.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from celery import bootsteps


class PoolReplacement:
    """The replacement of a pool's processes. Any thread calls `begin` and `wait`, the event loop the rest.

    Celery kills a new process that is not ready in time. `load_seconds` returns the seconds for which it may load
    models.
    """

    def __init__(self, load_seconds: Callable[[], float] = lambda: 0.0) -> None:
        self._load_seconds = load_seconds
        self._pool: Any = None
        #: The seconds that Celery gives a new process.
        self._start_seconds = 0.0
        self._on_complete: Callable[[], None] | None = None
        self._requested = False
        self._old: list[Any] = []
        self._has_extra_process = False
        #: The old process that was told to end last, while it may still be running.
        self._ending: Any = None
        self._done = threading.Event()
        self._done.set()

    def attach(self, pool: Any) -> None:
        """Set the pool: Celery's pool of processes that its event loop drives, or None for any other."""
        if pool is not None and pool is not self._pool:
            self._start_seconds = pool._proc_alive_timeout  # noqa: SLF001  # Celery has no public name for it
        self._pool = pool
        self._allow_loads()

    def _allow_loads(self) -> None:
        if self._pool is not None:
            self._pool._proc_alive_timeout = self._start_seconds + self._load_seconds()  # noqa: SLF001  # as above

    def when_complete(self, callback: Callable[[], None]) -> None:
        """Call back once every process is ready: at once if the pool does not fork."""
        if self._pool is None:
            callback()
        else:
            self._on_complete = callback

    @property
    def forks(self) -> bool:
        """True if the pool has processes of its own."""
        return self._pool is not None

    def skip_flush_of_idle_processes(self, pool: Any) -> None:
        """Stop Celery from waiting for the last output of a process that ended idle: 0.02 s of its event loop."""
        flush = getattr(pool, "process_flush_queues", None)

        def flush_unless_idle(process: Any) -> None:
            if flush is not None and process is not self._ending:
                flush(process)

        if pool is not None:
            pool.process_flush_queues = flush_unless_idle

    def begin(self) -> None:
        """Request that every present process is replaced, from the next turn of the event loop on."""
        if self._pool is not None:
            self._done.clear()
            self._requested = True

    def wait(self, timeout: float) -> bool:
        """Wait until all processes are replaced. Return False after `timeout` seconds: a claim may run longer."""
        return self._done.wait(timeout)

    def step(self) -> None:
        """Do what can be done now. The event loop calls this on each turn."""
        if self._on_complete is not None and _is_complete(self._pool):
            callback, self._on_complete = self._on_complete, None
            callback()
        if self._done.is_set():
            return
        pool = self._pool
        if pool._state != 0 or pool._worker_handler._state != 0:  # noqa: SLF001  # the pool closes; billiard has no public name for it
            self._finish()
            return
        if self._requested:
            self._allow_loads()
            self._requested, self._old = False, list(pool._pool)  # noqa: SLF001  # nor for its processes
            if not self._has_extra_process:
                self._has_extra_process = True
                pool.grow(1)
                pool.maintain_pool()
        self._old = [process for process in self._old if process in pool._pool]  # noqa: SLF001  # as above
        if self._ending in pool._pool or not _is_complete(pool):  # noqa: SLF001  # as above
            return
        self._ending = None
        if free := next((process for process in self._old or pool._pool if _is_free(pool, process)), None):  # noqa: SLF001
            if len(self._old) <= 1:
                self._finish()
            _end(pool, free)
            self._ending = free

    def _finish(self) -> None:
        if self._has_extra_process:
            self._has_extra_process = False
            self._pool._processes -= 1  # noqa: SLF001  # as `Pool.shrink` does, which chooses the process itself
            self._pool._putlock.shrink()  # noqa: SLF001  # as above
        self._old = []
        self._done.set()


def _is_complete(pool: Any) -> bool:
    """Return True if no process is missing and each has reported that it is ready."""
    processes = pool._pool  # noqa: SLF001  # as above
    all_ready = all(process.inqW_fd in pool._all_inqueues for process in processes)  # noqa: SLF001  # as above
    return len(processes) >= pool._processes and all_ready  # noqa: SLF001  # as above


def _is_free(pool: Any, process: Any) -> bool:
    """Return True if the process neither runs a claim nor is about to receive one."""
    fd = process.inqW_fd
    if fd in pool._busy_workers or fd in pool._active_writes:  # noqa: SLF001  # as above
        return False
    return not any(
        process in {job._write_to, job._scheduled_for} or process.pid in job.worker_pids()  # noqa: SLF001  # as above
        for job in list(pool._cache.values())  # noqa: SLF001  # as above
    )


def _end(pool: Any, process: Any) -> None:
    pool._busy_workers.add(process.inqW_fd)  # noqa: SLF001  # so that no further claim is sent to it
    process.terminate_controlled()


class PoolReplacementStep(bootsteps.StartStopStep):
    """The step of the worker's blueprint that drives the replacement. The app sets `pool_replacement`."""

    requires = ("celery.worker.components:Pool",)
    pool_replacement = PoolReplacement()

    def start(self, worker: Any) -> None:
        """Prepare the pool, which has started; its event loop has not."""
        self.pool_replacement.skip_flush_of_idle_processes(getattr(worker.pool, "_pool", None))

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Attach the pool. Celery calls this when its event loop starts and after a lost connection."""
        pool = getattr(worker.pool, "_pool", None)
        self.pool_replacement.attach(pool if hasattr(pool, "_all_inqueues") else None)
        hub.on_tick.add(self.pool_replacement.step)
