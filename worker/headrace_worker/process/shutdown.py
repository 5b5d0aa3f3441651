"""How a worker stops: within bounded time, and no job is lost or counted as tried.

    told to stop ──> drain: takes no more, what runs may end ──> [all done] ──> ends
                          │
                          └─ time is up, or told again ──> kill the pool processes ──> release ──> ends

SIGTERM, Ctrl-C and `celery control shutdown` tell it to stop; a second one, or SIGQUIT, to stop at once. Celery
drains without a bound, or sleeps all of its `worker_soft_shutdown_timeout` with its event loop, also when
nothing runs any more. So its handlers of these signals are replaced.
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

#: Seconds it takes at the most to kill, to put back and to end. Together with `drain` less than the 30 that
#: container runtimes wait before they kill.
_ENDS_WITHIN = 4.0


class Shutdown(bootsteps.StartStopStep):
    """The worker's step that bounds its end. Set by the app: seconds to `drain`, and how to `release`."""

    requires = ("celery.worker.components:Pool",)
    drain: float = 25.0
    release: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._worker = worker
        self._told = False
        # Signals write to a pipe: unlike locks, that is safe wherever one interrupts the main thread.
        self._hear, self._tell = os.pipe()

    def start(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """Take the signals over from Celery, which has set its own by now."""
        threading.Thread(target=self._run, name="headrace-stopping", daemon=True).start()
        for name in ("SIGTERM", "SIGINT", "SIGQUIT"):
            platforms.signals[name] = self._on_signal

    def close(self, worker: Any) -> None:  # noqa: ARG002  # Celery's signature
        """The worker ends, for whatever reason: time runs."""
        if not self._told:
            self._told = True
            os.write(self._tell, b".")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # signal's signature
        if self._told or number == signal.SIGQUIT:
            state.should_terminate = EX_FAILURE
            os.write(self._tell, b"!!")
        else:
            state.should_stop = EX_OK
            os.write(self._tell, b".")
        self._told = True

    def _run(self) -> None:
        """The thread: the main one may be busy, or wait for the pool without end."""
        if os.read(self._hear, 1) == b".":
            log.info("stopping: what runs may run on for %g s; told again, it is put back at once", self.drain)
            select.select([self._hear], [], [], self.drain)
        state.should_terminate = EX_FAILURE
        guard = threading.Timer(_ENDS_WITHIN, self._leave)
        guard.daemon = True
        guard.start()
        # Where the main thread computes in C (`--pool solo`), no other runs: this one needs no interpreter.
        faulthandler.dump_traceback_later(_ENDS_WITHIN + 0.5, exit=True, file=sys.__stderr__ or 2)
        self._kill()
        self.release()

    def _leave(self) -> None:
        log.warning("did not end by itself within %g s, ends now; leases it still has lapse", _ENDS_WITHIN)
        os._exit(EX_FAILURE)

    def _kill(self) -> None:
        """End what computes, before others compute the same: SIGTERM does not reach a model in its own loop."""
        pool = getattr(self._worker.pool, "_pool", None)
        for process in getattr(pool, "_pool", ()):
            for kill in (os.kill, os.killpg):  # it, and then what it has started
                with contextlib.suppress(ProcessLookupError):
                    kill(process.pid, signal.SIGKILL)
