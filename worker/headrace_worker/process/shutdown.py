"""Stop a worker in bounded time, without losing a job or counting it as tried.

    first signal ──> drain: claim no more, finish the running claims ──> [all finished] ──> end
                          │
                          └─ `drain` is over, or a second signal ──> kill the pool ──> release the claims ──> end

SIGTERM, Ctrl-C and `celery control shutdown` start a graceful shutdown; a second one, or SIGQUIT, a cold one.
Celery drains without a bound, or sleeps for all of its `worker_soft_shutdown_timeout` in its event loop, even if
nothing is running. So this step replaces Celery's handlers of these signals.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from celery import bootsteps, platforms
from celery.platforms import EX_FAILURE, EX_OK
from celery.worker import state

log = logging.getLogger("headrace.worker")

#: Seconds to kill the pool, release its claims and end. With `drain` it must stay below the 30 that container
#: runtimes wait before they kill a container.
_EXIT_TIMEOUT = 4.0


class Shutdown(bootsteps.StartStopStep):
    """The step of the worker's blueprint that bounds its shutdown. The app sets `drain` and `release`."""

    requires = ("celery.worker.components:Pool",)
    #: Seconds for which running claims may go on.
    drain: float = 25.0
    #: Returns unfinished claims to their queues.
    release: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._worker = worker
        self._requested = False
        # Signal handlers write to a pipe: unlike locks, that is safe wherever they interrupt the main thread.
        self._read_fd, self._write_fd = os.pipe()

    def start(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Replace Celery's signal handlers, which it has set by now."""
        threading.Thread(target=self._run, name="headrace-stopping", daemon=True).start()
        for name in ("SIGTERM", "SIGINT", "SIGQUIT"):
            platforms.signals[name] = self._on_signal

    def close(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Start the drain period, if no signal has: the worker ends for another reason."""
        if not self._requested:
            self._requested = True
            os.write(self._write_fd, b".")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # signal's signature
        if self._requested or number == signal.SIGQUIT:
            state.should_terminate = EX_FAILURE
            os.write(self._write_fd, b"!!")
        else:
            state.should_stop = EX_OK
            os.write(self._write_fd, b".")
        self._requested = True

    def _run(self) -> None:
        """Wait for the shutdown. A thread, as the main thread may be busy, or wait for the pool without end."""
        if os.read(self._read_fd, 1) == b".":
            log.info(
                "shutting down: running claims have %g s to finish; a second signal returns them to their queues "
                "at once",
                self.drain,
            )
            select.select([self._read_fd], [], [], self.drain)
        state.should_terminate = EX_FAILURE
        timer = threading.Timer(_EXIT_TIMEOUT, self._exit)
        timer.daemon = True
        timer.start()
        # While the main thread computes in C (`--pool solo`), no other Python thread runs: this needs none.
        faulthandler.dump_traceback_later(_EXIT_TIMEOUT + 0.5, exit=True, file=sys.__stderr__ or 2)
        self._kill_pool()
        self.release()

    def _exit(self) -> None:
        log.warning(
            "shutdown exceeded %g s; exiting. Unfinished jobs return to their queues when their leases expire",
            _EXIT_TIMEOUT,
        )
        os._exit(EX_FAILURE)

    def _kill_pool(self) -> None:
        """Kill the pool before others run the same jobs. A model in a loop of its own ignores SIGTERM."""
        pool = getattr(self._worker.pool, "_pool", None)
        for process in getattr(pool, "_pool", ()):
            for kill in (os.kill, os.killpg):  # the process, and then what it has started
                with contextlib.suppress(ProcessLookupError):
                    kill(process.pid, signal.SIGKILL)
