"""The claim's last step in the main process: to the pool process that runs it."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from headrace_worker.execution.scheduling import lower_priority


class DirectDispatch:
    """Writes a claim to a pool process that is free as soon as Celery has put it before its pool.

    Celery does two turns of its event loop later: one to ask which processes can be written to, one to hear.
    """

    def __init__(self) -> None:
        self._pool: Any = None
        self._hub: Any = None

    def for_pool(self, pool: Any, hub: Any) -> None:
        """Say which pool, and which event loop drives it."""
        self._pool, self._hub = pool, hub

    def write(self) -> None:
        """Write what waits."""
        pool = self._pool
        if pool is not None and pool.outbound_buffer:
            taken = pool._busy_workers | pool._active_writes  # noqa: SLF001  # billiard has no public word for it
            self._hub.consolidate_callback([fd for fd in pool._all_inqueues if fd not in taken])  # noqa: SLF001


class DispatchStep(bootsteps.StartStopStep):
    """The worker's step that says whose claims are handed over. Set by the app: the `handover`."""

    requires = ("celery.worker.components:Pool",)
    handover = DirectDispatch()

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """The event loop begins, or begins anew after a lost connection."""
        pool = getattr(worker.pool, "_pool", None)
        forks = hasattr(pool, "outbound_buffer")
        self.handover.for_pool(pool if forks else None, hub)
        if forks:
            lower_priority()
