"""The follow-ups of one worker's jobs. Its pool processes plan and send them.

The main process sends what lost workers left.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import redis

from headrace.connection.commands import execute
from headrace.wire.keys import Keys
from headrace.wire.signing import JobKeys
from headrace_worker.execution.canvas_app import CanvasApp
from headrace_worker.execution.follow_up_sender import FollowUpSender
from headrace_worker.execution.follow_ups import FollowUpPlanner
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry.loops import LoopHealth
from headrace_worker.transport.follow_up_scripts import fail_command

#: Seconds between two looks for what lost workers left.
_SWEEP_SECONDS = 1.0
#: Seconds without a look after which the worker is not ready.
LATE_SECONDS = 60.0


class FollowUpService:
    """Planner and sender of the follow-ups of this worker's jobs. `connect` returns the client of a process.

    `is_due` returns whether this worker is to look for what lost workers left.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        connect: Callable[[], redis.Redis],
        loop: LoopHealth,
        is_due: Callable[[], bool],
    ) -> None:
        self._settings, self._connect, self._keys = settings, connect, Keys(settings.key_prefix)
        self._app: CanvasApp | None = None
        self._pid = 0
        self._stop, self._loop, self._is_due = threading.Event(), loop, is_due
        self.planner = FollowUpPlanner(self._make_app)
        self.sender = FollowUpSender(
            connect,
            self._keys,
            self._make_app,
            lease_ms=int(settings.lease * 1000),
            ttl=settings.result_ttl,
        )

    def _make_app(self) -> CanvasApp:
        """Return the canvas app of this process; few processes ever need it."""
        if self._app is None or self._pid != os.getpid():
            settings = self._settings
            self._pid, self._app = (
                os.getpid(),
                CanvasApp(
                    self._connect,
                    self._keys,
                    queues=[name for name in settings.callback_queues.replace(",", " ").split() if name],
                    job_keys=JobKeys.parse(settings.job_keys),
                    ttl=settings.result_ttl,
                    store_failure=self._store_failure,
                ),
            )
        return self._app

    def _store_failure(self, task: str, failure: str) -> None:
        execute(self._connect(), fail_command(self._keys, task, failure, ttl=self._settings.result_ttl))

    def start(self) -> None:
        """Send what lost workers left, from now on."""
        threading.Thread(target=self._run, name="headrace-follow-ups", daemon=True).start()

    def stop(self) -> None:
        """Stop sending."""
        self._stop.set()

    def _run(self) -> None:
        self._loop.run_rounds(self._send_due, self._stop, _SWEEP_SECONDS)

    def _send_due(self) -> None:
        if not self._is_due():
            return
        while self.sender.send_due() and not self._stop.is_set():
            pass
