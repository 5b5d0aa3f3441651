"""Adapt Celery's supervision to claims: lost and slow pool processes, lost connections."""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import redis
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import bootsteps
from celery.worker import state
from celery.worker.request import Request

if TYPE_CHECKING:
    from celery.worker.consumer.consumer import Consumer

    from headrace_worker.transport import LeaseKeeper

log = logging.getLogger("headrace.claims")

#: Seconds between two searches for lost pool processes.
_REAP_SECONDS = 0.2
#: Seconds between two removals of cancelled timers.
_PRUNE_SECONDS = 1.0


def is_cold_shutdown() -> bool:
    """Return True during a cold shutdown, when lost pool processes are expected."""
    return bool(state.should_terminate)


class ClaimRequest(Request):  # type: ignore[misc]  # Celery has no types here
    """Celery's request for a claim. Whatever ends the process, the claim's jobs are requeued.

    With a cause (`crash` or `timeout`) they count as tried, and each runs isolated. Without a cause (this worker
    shuts down, or Redis stayed unreachable) they are requeued unchanged.
    """

    #: Called with the cause when a claim's process was lost or exceeded its time limit. The app sets it.
    on_lost: Callable[[str], None] = staticmethod(lambda _cause: None)

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002  # Celery's signature
        """Return what `celery inspect` shows: the model and the number of jobs, never their content."""
        return dict(super().info(safe=True))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Log that the soft time limit passed. For the hard one, `on_failure` has run already."""
        if soft:
            log.warning("%s: interrupted after %g s", self.argsrepr, timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Requeue the claim's jobs: its process was lost or took too long, or the claim raised."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if not is_cold_shutdown() and not isinstance(error, redis.RedisError):
            self.message.cause = "timeout" if isinstance(error, TimeLimitExceeded) else "crash"
        if not isinstance(error, WorkerLostError | TimeLimitExceeded | MemoryError):
            return super().on_failure(exc_info, send_failed_event, return_ok)
        # Celery would end the task, and for a MemoryError the worker. Here, only the pool process ends.
        if not is_cold_shutdown():
            log.error("%s: %s", self.argsrepr, _describe(error))
            self.on_lost(self.message.cause)
        if not isinstance(
            error, WorkerLostError
        ):  # the process still computes, or has no memory for another claim
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.worker_pid, signal.SIGKILL)
        state.task_ready(self)
        self.reject(requeue=True)
        return None


def _describe(error: Exception) -> str:
    match error:
        case TimeLimitExceeded(args=(seconds, *_)):
            return f"killed after {seconds:g} s"
        case MemoryError():
            return "out of memory"
        case _:
            return str(error)


class ReapLostProcesses(bootsteps.StartStopStep):
    """The step of the worker's blueprint that finds lost pool processes soon.

    Celery searches when a process has closed its files, which is a moment before it has ended. If it searches too
    early, its next search is 5 s later, and the process's jobs wait until then.
    """

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Start the timer. Celery calls this when its event loop starts and after a lost connection."""
        if maintain := getattr(worker.pool, "maintain_pool", None):
            hub.call_repeatedly(_REAP_SECONDS, maintain)


class PruneTimers(bootsteps.StartStopStep):
    """The step of the worker's blueprint that removes cancelled timers from the event loop.

    Celery starts a timer for the time limit of each claim, and kombu keeps a cancelled timer until it is due: half
    a kilobyte for each claim of the last hour (celery/celery#5200).
    """

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Start the timer. Celery calls this when its event loop starts and after a lost connection."""
        hub.call_repeatedly(_PRUNE_SECONDS, _remove_cancelled, hub.timer)


def _remove_cancelled(timer: Any) -> None:
    queue = timer._queue  # noqa: SLF001  # kombu has no public name for it; its loop holds this list
    queue[:] = [scheduled for scheduled in queue if not scheduled.entry.canceled]
    heapq.heapify(queue)


class ReleaseDropped(bootsteps.StartStopStep):
    """The step of the consumer's blueprint that requeues claims that Celery dropped with a lost connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    #: Returns the keeper of this worker's leases, None if it has none yet. The app sets it.
    lease_keeper: Callable[[], LeaseKeeper | None] = staticmethod(lambda: None)

    def start(self, parent: Consumer) -> None:
        """Requeue them: the connection is restored, and nothing is consumed yet."""
        _watch_all_processes(parent)
        if (keeper := self.lease_keeper()) is None:
            return
        running = {request.message.delivery_tag for request in state.active_requests}
        for name in keeper.names:
            if name not in running:
                keeper.adopt_orphan(name)


def _watch_all_processes(consumer: Consumer) -> None:
    # When two pool processes end at once, Celery may attribute the second event to a process it has just started,
    # whose file descriptor has the same number. It no longer watches that process, and fails on it when it next
    # joins an event loop, which is now. Without the attribute it starts to watch the process.
    for process in getattr(getattr(consumer.pool, "_pool", None), "_pool", ()):
        if getattr(process, "_sentinel_poll", ...) is None:
            del process._sentinel_poll  # noqa: SLF001
