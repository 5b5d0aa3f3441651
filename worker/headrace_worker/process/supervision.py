"""How Celery supervises claims: pool processes that are lost or take too long, lost connections, revoked jobs."""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import redis
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import bootsteps
from celery.utils.functional import maybe_list
from celery.worker import control, state
from celery.worker.request import Request

if TYPE_CHECKING:
    from celery.worker.consumer.consumer import Consumer

    from headrace_worker.transport import LeaseKeeper

log = logging.getLogger("headrace.claims")

#: Seconds between two looks for lost pool processes.
_LOOK_EVERY = 0.2
#: Seconds for which the event loop keeps timers that were cancelled.
_FORGET_EVERY = 1.0


def is_stopping() -> bool:
    """Whether this worker stops at once: that its processes are lost is its own doing."""
    return bool(state.should_terminate)


class ClaimRequest(Request):  # type: ignore[misc]  # Celery has no types here
    """Celery's request for a claim. Whatever ends the process, the jobs go back; this tells them why.

    With a cause they have been tried, and each runs alone. Without one (this worker is told to stop, or Redis
    stayed away) they go back as they were.
    """

    #: Set by the app: told of a claim whose process was lost or took too long, with the cause.
    lost: Callable[[str], None] = staticmethod(lambda _cause: None)

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002  # Celery's signature
        """What `celery inspect` shows: the model and how many jobs, never what is in them."""
        return dict(super().info(safe=True))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A time limit passed. Of the hard one, `on_failure` has heard first."""
        if soft:
            log.warning("%s: interrupted after %g s", self.argsrepr, timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """The pool process was lost, took too long, or the claim raised."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if not is_stopping() and not isinstance(error, redis.RedisError):
            self.message.cause = "timeout" if isinstance(error, TimeLimitExceeded) else "crash"
        if not isinstance(error, WorkerLostError | TimeLimitExceeded | MemoryError):
            return super().on_failure(exc_info, send_failed_event, return_ok)
        # To Celery this is the end of a task, a MemoryError even that of the worker. Here it is that of a process.
        if not is_stopping():
            log.error("%s: %s", self.argsrepr, _told(error))
            self.lost(self.message.cause)
        if not isinstance(error, WorkerLostError):  # it computes on, or has no memory for the next claim
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.worker_pid, signal.SIGKILL)
        state.task_ready(self)
        self.reject(requeue=True)
        return None


def _told(error: Exception) -> str:
    match error:
        case TimeLimitExceeded(args=(seconds, *_)):
            return f"killed after {seconds:g} s"
        case MemoryError():
            return "out of memory"
        case _:
            return str(error)


class ReapLostProcesses(bootsteps.StartStopStep):
    """Notice lost pool processes soon.

    Celery looks for them when one has closed its files, which is a moment before it has ended; if it looks too
    soon, it does so again after 5 s, and the jobs hang until then.
    """

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """The event loop begins, or begins anew after a lost connection."""
        if maintain := getattr(worker.pool, "maintain_pool", None):
            hub.call_repeatedly(_LOOK_EVERY, maintain)


class PruneTimers(bootsteps.StartStopStep):
    """Drop timers that were cancelled.

    Celery has one for the time limit of each claim, and kombu keeps it until that has passed: half a kilobyte for
    each claim of the last hour (celery/celery#5200).
    """

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:  # noqa: ARG002  # Celery's signature
        """The event loop begins, or begins anew after a lost connection."""
        hub.call_repeatedly(_FORGET_EVERY, _forget_cancelled, hub.timer)


def _forget_cancelled(timer: Any) -> None:
    queue = timer._queue  # noqa: SLF001  # kombu has no word for it; its loop holds this list
    queue[:] = [one for one in queue if not one.entry.canceled]
    heapq.heapify(queue)


class ReleaseDropped(bootsteps.StartStopStep):
    """After a lost connection: what Celery dropped with it goes back to its queue."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    #: Set by the app: the keeper of this worker's leases, if it has one yet.
    keeper: Callable[[], LeaseKeeper | None] = staticmethod(lambda: None)

    def start(self, parent: Consumer) -> None:
        """The connection is there again, and nothing is consumed yet."""
        _watch_processes_again(parent)
        if (keeper := self.keeper()) is None:
            return
        begun = {request.message.delivery_tag for request in state.active_requests}
        for name in keeper.names:
            if name not in begun:
                keeper.adopt_orphan(name)


def _watch_processes_again(consumer: Consumer) -> None:
    # When two pool processes end at once, Celery may take the second event for one of a process just started,
    # whose file descriptor has the same number. It watches that process no more, and fails on it, and for good,
    # when it next joins an event loop: now. Without the attribute it begins to watch anew.
    for process in getattr(getattr(consumer.pool, "_pool", None), "_pool", ()):
        if getattr(process, "_sentinel_poll", ...) is None:
            del process._sentinel_poll  # noqa: SLF001


def revoke_cancels(cancel: Callable[[Sequence[str]], None]) -> None:
    """Let `celery control revoke ID` cancel jobs too, wherever they wait."""

    @control.control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")  # type: ignore[untyped-decorator]  # Celery's
    def revoke(of_worker: Any, task_id: Any, terminate: bool = False, **options: Any) -> Any:
        """Cancel jobs and revoke tasks by id."""
        ids = [str(one) for one in maybe_list(task_id) or []]
        cancel(ids)
        if terminate:  # an ordinary task; a job's batch-mates are not ended for its sake
            return _revoke(of_worker, ids, terminate=True, **options)
        state.revoked.update(ids)
        return {"ok": f"cancelled, or flagged as revoked: {', '.join(ids)}"}


_revoke = control.revoke
