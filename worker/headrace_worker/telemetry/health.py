"""Whether a worker lives, and whether it is ready; as a file written anew every few seconds, and over HTTP.

Alive is a worker whose event loop turns, or that waits for a Redis that is away or silent: to restart it would
bring nothing back. Pool processes are not looked at: a time limit ends one that hangs. Ready is one whose models
are proven.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.errors import HeadraceError

log = logging.getLogger("headrace.worker")

#: Seconds without a sign of life of the event loop until it counts as hung.
HUNG_SECONDS = 30.0
#: Seconds without a reply after which Redis counts as silent: whoever has asked it something stands still.
_SILENT_AFTER = 2.0
#: Seconds between two writings of the file, and after which what it says is no longer believed.
WRITE_SECONDS, STALE_SECONDS = 5.0, 20.0


class HealthStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker is; as JSON it is what stands in the file."""

    live: bool
    ready: bool
    #: In words, for a person.
    reason: str
    pid: int = 0


class Health:
    """What the main process of a worker knows of itself. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: When the event loop last turned; None where it does not run: at the start, while Redis is away.
        self._beat: float | None = None
        #: Since when a question to Redis, that of a thread beside the event loop, has no answer.
        self._asked: float | None = None
        self._ready = self._stopping = self._away = False

    def record_heartbeat(self) -> None:
        """The event loop turns."""
        self._beat = self._clock()

    def mark_connected(self) -> None:
        """There is a connection to Redis, and the event loop is about to turn."""
        self._away = False

    def mark_disconnected(self) -> None:
        """The connection is lost: the event loop stands still until there is another."""
        self._away, self._beat = True, None

    def mark_request_sent(self) -> None:
        """Redis is asked something, beside the event loop."""
        if self._asked is None:
            self._asked = self._clock()

    def mark_reply_received(self) -> None:
        """Redis answers. An event loop that waited for it has time again until it must turn."""
        if self._silent and self._beat is not None:
            self._beat = self._clock()
        self._asked = None

    @property
    def _silent(self) -> bool:
        asked = self._asked
        return asked is not None and self._clock() - asked > _SILENT_AFTER

    def mark_ready(self) -> None:
        """The models are proven, and the pool is up."""
        self._ready = True

    def mark_stopping(self) -> None:
        """It was told to stop."""
        self._stopping = True

    def status(self) -> HealthStatus:
        """How it is now."""
        still = 0.0 if self._beat is None else self._clock() - self._beat
        silent = self._silent
        live = still < HUNG_SECONDS or silent
        if not live:
            why = f"the worker hangs: its event loop has not turned for {still:.0f} s"
        elif self._stopping:
            why = "the worker was told to stop, and ends"
        elif not self._ready:
            why = "the worker starts: its models are being loaded"
        else:
            why = "Redis is away; the worker waits for it" if self._away else "all is well"
            if silent and not self._away:
                why = "Redis does not answer; the worker waits for it"
        return HealthStatus(
            live=live, ready=live and self._ready and not self._stopping, reason=why, pid=os.getpid()
        )


class HealthFile:
    """The file: written by a thread of the main process, so that it is late only where that is stopped."""

    def __init__(self, path: str, health: Health) -> None:
        self._path, self._health, self._pid = Path(path), health, os.getpid()
        self._stop = threading.Event()
        self._failed = False

    def start(self) -> None:
        """Write it from now on."""
        self._write()
        threading.Thread(target=self._run, name="headrace-health", daemon=True).start()

    def remove(self) -> None:
        """The worker ends."""
        if os.getpid() == self._pid:
            self._stop.set()
            self._path.unlink(missing_ok=True)

    def update(self) -> None:
        """Say at once that something has changed."""
        if os.getpid() == self._pid and not self._stop.is_set():
            self._write()

    def _run(self) -> None:
        while not self._stop.wait(WRITE_SECONDS):
            self._write()

    def _write(self) -> None:
        beside = self._path.with_name(f".{self._path.name}.{self._pid}.{threading.get_ident()}")
        try:
            beside.write_bytes(msgspec.json.encode(self._health.status()))
            beside.replace(self._path)
            self._failed = False
        except OSError as error:
            if not self._failed:  # once, not every few seconds
                log.warning("cannot write HEADRACE_HEALTH_FILE %s: %s", self._path, error.strerror)
            self._failed = True


def read_status(path: Path, now: float) -> HealthStatus:
    """What the file of a worker says; `now` is unix seconds. Raises HeadraceError where there is none to read."""
    try:
        written, verdict = path.stat().st_mtime, msgspec.json.decode(path.read_bytes(), type=HealthStatus)
    except FileNotFoundError:
        raise HeadraceError(
            f"no worker writes {path}: none runs, or its HEADRACE_HEALTH_FILE is another"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise HeadraceError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if now - written > STALE_SECONDS:
        why = f"the worker is stopped, or gone: it has not written {path} for {now - written:.0f} s"
        return HealthStatus(live=False, ready=False, reason=why, pid=verdict.pid)
    return verdict
