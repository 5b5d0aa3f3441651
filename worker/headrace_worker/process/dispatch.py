"""Direct dispatch: the main process writes a claim to a pool process without waiting for its event loop."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from headrace_worker.execution.scheduling import lower_priority


class DirectDispatch:
    """Writes a claim to a free pool process as soon as Celery has queued it for its pool.

    Celery itself does that two turns of its event loop later: it asks which processes are writable in the first,
    and reads the answer in the second.
    """

    def __init__(self) -> None:
        self._pool: Any = None
        self._hub: Any = None

    def attach(self, pool: Any, hub: Any) -> None:
        """Set the pool, and the event loop that drives it. `pool` is None if it does not fork."""
        self._pool, self._hub = pool, hub

    def write(self) -> None:
        """Write the queued claims to the pool processes that are free."""
        pool = self._pool
        if pool is not None and pool.outbound_buffer:
            occupied = pool._busy_workers | pool._active_writes  # noqa: SLF001  # billiard has no public name for it
            self._hub.consolidate_callback([fd for fd in pool._all_inqueues if fd not in occupied])  # noqa: SLF001


class DispatchStep(bootsteps.StartStopStep):
    """The step of the worker's blueprint that attaches the dispatch to the pool. The app sets `dispatch`."""

    requires = ("celery.worker.components:Pool",)
    dispatch = DirectDispatch()

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Attach the pool. Celery calls this when its event loop starts and after a lost connection."""
        pool = getattr(worker.pool, "_pool", None)
        forks = hasattr(pool, "outbound_buffer")
        self.dispatch.attach(pool if forks else None, hub)
        if forks:
            lower_priority()
