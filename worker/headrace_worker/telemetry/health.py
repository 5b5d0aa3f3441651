"""The liveness and readiness of a worker, kept in its main process and written to a file every few seconds.

A worker is live while its event loop turns, or while it waits for a Redis that is disconnected or does not answer:
a restart would not help then. Pool processes are not checked, because a time limit ends one that hangs.
A worker is ready once its models are loaded and proven, and as long as its loops turn in time (`loops`). The
reason of a status says what a worker waits for: which model, or Redis at which host.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.connection.outage_log import OutageLog
from headrace.errors import HeadraceError
from headrace.wire.stored import DECODE_ERRORS
from headrace_worker.telemetry.loops import LATE_SECONDS, Loop, LoopHealth, LoopStatus

log = logging.getLogger("headrace.worker")

#: The name of Celery's consumer in the log of outages.
CONSUMER = "consumer"
#: Seconds without a heartbeat of the event loop after which the worker counts as hung.
HUNG_SECONDS = 30.0
#: Seconds a request to Redis may stay unanswered before Redis counts as silent; its sender is blocked meanwhile.
_SILENT_SECONDS = 2.0
#: Seconds between two writes of the health file, and the age at which a reader no longer trusts it.
WRITE_SECONDS, STALE_SECONDS = 5.0, 20.0


class HealthStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The health of a worker at one moment; its JSON form is the content of the health file."""

    live: bool
    ready: bool
    #: The cause of this status, as a sentence for a person.
    reason: str
    pid: int = 0


class Health:
    """The signals from which the main process derives its health. `clock` returns monotonic seconds.

    `outages` is the log of the outages of Redis, to which the loops of this process report. `server` is the host
    and port of Redis, without a secret.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        outages: OutageLog | None = None,
        server: str = "",
    ) -> None:
        self._clock, self.outages = clock, outages or OutageLog(log)
        self._redis = f"Redis at {server}" if server else "Redis"
        #: The time of the last heartbeat; None while the loop does not run: during the start, without Redis.
        self._last_heartbeat: float | None = None
        #: The time of the oldest unanswered request to Redis that a thread beside the event loop has sent.
        self._request_sent: float | None = None
        self._ready = self._stopping = self._disconnected = False
        #: What is loaded during the start, as the end of a sentence; "" after that.
        self._loading, self._position = "its models are being loaded", ""
        self._loops: dict[str, Loop] = {}

    def watch_loop(self, name: str, *, late_after: float) -> LoopHealth:
        """Return the health of a new loop, which is part of the worker's. It replaces one of the same name."""
        loop = LoopHealth(name, late_after=late_after, clock=self._clock, outages=self.outages)
        self.add_loop(loop)
        return loop

    def add_loop(self, loop: Loop) -> None:
        """Make a loop a part of the worker's health. It replaces one of the same name."""
        self._loops[loop.name] = loop

    def loops(self) -> list[LoopStatus]:
        """Return the state of each loop that has begun."""
        return [status for loop in list(self._loops.values()) if (status := loop.status()) is not None]

    def record_heartbeat(self) -> None:
        """Record that the event loop turns."""
        self._last_heartbeat = self._clock()

    def mark_connected(self) -> None:
        """Record that Redis is connected; the event loop is about to turn."""
        self._disconnected = False

    def mark_disconnected(self) -> None:
        """Record that the connection to Redis is lost; the event loop stops until there is another."""
        self._disconnected, self._last_heartbeat = True, None

    def mark_request_sent(self) -> None:
        """Record that a thread beside the event loop waits for a reply of Redis."""
        if self._request_sent is None:
            self._request_sent = self._clock()

    def mark_reply_received(self) -> None:
        """Record that Redis has answered. After a silence the event loop gets its full time to turn again."""
        if self._is_silent and self._last_heartbeat is not None:
            self._last_heartbeat = self._clock()
        self._request_sent = None

    @property
    def _is_silent(self) -> bool:
        sent = self._request_sent
        return sent is not None and self._clock() - sent > _SILENT_SECONDS

    def mark_model(self, model: str, number: int, count: int) -> None:
        """Record that the start comes to a model, the `number`th of `count`."""
        self._position = f"{number} of {count}"
        self._mark_loading(f"it loads model {model} ({self._position})")

    def mark_version(self, model: str, version: str) -> None:
        """Record that the start loads a version of this model."""
        self._mark_loading(f"it loads model {model} version {version} ({self._position})")

    def _mark_loading(self, text: str) -> None:
        if self._loading:  # later loads do not keep a worker from being ready
            self._loading = text

    def mark_loaded(self) -> None:
        """Record that the models are loaded, and the worker is about to connect."""
        self._loading = ""

    def mark_ready(self) -> None:
        """Record that the models are proven and the pool is up."""
        self._ready = True

    def mark_stopping(self) -> None:
        """Record that the worker was asked to stop."""
        self._stopping = True

    def status(self) -> HealthStatus:
        """Return the health of the worker now."""
        idle_seconds = 0.0 if self._last_heartbeat is None else self._clock() - self._last_heartbeat
        silent = self._is_silent
        problem = next((loop.problem for loop in self.loops() if loop.problem), None)
        live = idle_seconds < HUNG_SECONDS or silent
        if not live:
            reason = f"the worker hangs: its event loop has not turned for {idle_seconds:.0f} s"
        elif self._stopping:
            reason = "the worker is shutting down"
        elif not self._ready:
            reason = f"the worker starts: {self._loading or self._starting()}"
        elif problem is not None:
            reason = problem
        elif self._disconnected or self.outages.is_failing(CONSUMER):
            reason = f"the worker {self._waiting()}"
        elif silent:
            reason = f"the worker waits for {self._redis}, which does not answer"
        else:
            reason = "all is well"
        ready = live and self._ready and not self._stopping and problem is None
        return HealthStatus(live=live, ready=ready, reason=reason, pid=os.getpid())

    def _starting(self) -> str:
        """Return what a worker with loaded models waits for."""
        if self._disconnected or self.outages.is_failing(CONSUMER):
            return f"it {self._waiting()}"
        return "its pool processes load their models"

    def _waiting(self) -> str:
        cause = self.outages.cause.removeprefix(self._redis).strip()
        return f"waits for {self._redis}" + (f", which {cause}" if cause else "")


class HealthFile:
    """The health file of a worker. A thread of the main process writes it, so it is stale only if that stops."""

    def __init__(self, path: str, health: Health) -> None:
        self._path, self._health, self._pid = Path(path), health, os.getpid()
        self._stop = threading.Event()
        self._loop = health.watch_loop("health-file", late_after=LATE_SECONDS)
        self._failed = False

    def start(self) -> None:
        """Write the file now, and every few seconds from now on."""
        self._write()
        threading.Thread(
            target=self._loop.run_rounds,
            args=(self._write, self._stop, WRITE_SECONDS),
            name="headrace-health",
            daemon=True,
        ).start()

    def remove(self) -> None:
        """Stop writing and delete the file, in the process that made this object."""
        if os.getpid() == self._pid:
            self._stop.set()
            self._path.unlink(missing_ok=True)

    def update(self) -> None:
        """Write the file at once, because the health has changed."""
        if os.getpid() == self._pid and not self._stop.is_set():
            self._write()

    def _write(self) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{self._pid}.{threading.get_ident()}")
        try:
            temporary.write_bytes(msgspec.json.encode(self._health.status()))
            temporary.replace(self._path)
            self._failed = False
        except OSError as error:
            if not self._failed:  # once, not every few seconds
                log.warning(
                    "cannot write the health file %s: %s; check HEADRACE_HEALTH_FILE and the folder's permissions",
                    self._path,
                    error.strerror,
                )
            self._failed = True


def read_status(path: Path, now: float) -> HealthStatus:
    """Return the status in a worker's health file. `now` is unix seconds; a stale file counts as not live.

    Raises HeadraceError if there is no file, or it is not a health file.
    """
    try:
        modified, status = path.stat().st_mtime, msgspec.json.decode(path.read_bytes(), type=HealthStatus)
    except FileNotFoundError:
        raise HeadraceError(
            f"there is no health file {path}: no worker runs, or its HEADRACE_HEALTH_FILE is another path"
        ) from None
    except (OSError, *DECODE_ERRORS) as error:
        raise HeadraceError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    age = now - modified
    if age > STALE_SECONDS:
        reason = f"the worker is stopped or has ended: it has not written {path} for {age:.0f} s"
        return HealthStatus(live=False, ready=False, reason=reason, pid=status.pid)
    return status
