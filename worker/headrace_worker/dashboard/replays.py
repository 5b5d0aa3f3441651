"""Replays of all dead letters of a filter, which run in threads of Flower while their pages show the counts."""

from __future__ import annotations

import itertools
import logging
import threading
import time

import msgspec

from headrace.client import Session
from headrace.clock import to_unix_ms, utc_now
from headrace.dead_letters.bulk import BulkOperation, BulkResult
from headrace.dead_letters.filter import DeadLetterFilter
from headrace.dead_letters.operations import DeadLetterOperations
from headrace.errors import HeadraceError, InvalidInput, UnknownLetter

log = logging.getLogger("headrace.dashboard")

#: Replays that run at once, and replays that are remembered.
_MAX_RUNNING, _MAX_STORED = 4, 100
#: The longest pause between two looks at whether a replay is to stop, in seconds.
_POLL_SECONDS = 0.2


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of a replay, as a user sent them."""

    #: The conditions of the filter, by name.
    conditions: dict[str, str | float]
    #: The version to run; None for the version each job names.
    version: str | None
    #: Letters a second; None for no limit.
    rate: float | None
    #: True: count, and change nothing.
    dry_run: bool
    #: The user's name.
    by: str


class ReplayProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A replay at one moment."""

    id: int
    request: ReplayRequest
    started_ms: int
    result: BulkResult = BulkResult()
    #: None while it runs.
    ended_ms: int | None = None
    #: The error that ended it.
    error: str | None = None
    #: True if a user stopped it, or has asked for it.
    is_stopped: bool = False

    @property
    def seconds(self) -> float:
        """The time it has taken, or takes so far."""
        return max(0.0, ((self.ended_ms or to_unix_ms(utc_now())) - self.started_ms) / 1000)


class Replays:
    """Starts and stops replays. It is used from the threads of Flower's pages."""

    def __init__(self, session: Session, operations: DeadLetterOperations) -> None:
        self._session, self._operations = session, operations
        self._ids, self._lock = itertools.count(1), threading.Lock()
        self._stored: dict[int, ReplayProgress] = {}

    def start(self, request: ReplayRequest) -> ReplayProgress:
        """Start a replay. Raises InvalidInput for a wrong condition, version or rate, and if too many run."""
        # The seconds of a filter are an age: from now on, the first moment must stay the same.
        conditions: DeadLetterFilter = {**request.conditions}  # type: ignore[typeddict-item]  # checked below
        bulk = self._operations.replay(
            conditions,
            utc_now(),
            version=request.version,
            rate=request.rate,
            dry_run=request.dry_run,
            every=False,
        )
        with self._lock:
            if sum(stored.ended_ms is None for stored in self._stored.values()) >= _MAX_RUNNING:
                raise InvalidInput(f"{_MAX_RUNNING} replays run already; wait for one, or stop it")
            progress = ReplayProgress(id=next(self._ids), request=request, started_ms=to_unix_ms(utc_now()))
            self._stored[progress.id] = progress
            for old in [name for name, stored in self._stored.items() if stored.ended_ms is not None]:
                if len(self._stored) <= _MAX_STORED:
                    break
                del self._stored[old]
        log.info("replay %d by %s: %s", progress.id, request.by, request)
        threading.Thread(target=self._run, args=(progress.id, bulk), name="replay", daemon=True).start()
        return progress

    def read(self, number: int) -> ReplayProgress:
        """Return a replay. Raises UnknownLetter if there is none of this number."""
        with self._lock:
            progress = self._stored.get(number)
        if progress is None:
            raise UnknownLetter(f"there is no replay {number}; Flower forgets them when it restarts")
        return progress

    def stop(self, number: int) -> None:
        """Let a replay end after its present step. Raises UnknownLetter."""
        self.read(number)
        self._update(number, is_stopped=True)

    def _run(self, number: int, bulk: BulkOperation) -> None:
        error = None
        try:
            while not bulk.finished and not self.read(number).is_stopped:
                pause_until = time.monotonic() + self._session.run(bulk.step(time.monotonic()))
                self._update(number, result=bulk.result)
                while (pause := pause_until - time.monotonic()) > 0 and not self.read(number).is_stopped:
                    time.sleep(min(pause, _POLL_SECONDS))
        except HeadraceError as raised:
            error = str(raised)
        except Exception:
            error = "an unexpected error, which is in the log of Flower"
            log.exception("replay %d ended", number)
        self._update(number, result=bulk.result, ended_ms=to_unix_ms(utc_now()), error=error)
        log.info("replay %d has ended: %s", number, self.read(number).result)

    def _update(self, number: int, **fields: object) -> None:
        with self._lock:
            progress = msgspec.structs.replace(self._stored[number], **fields)
            # A replay that has ended was not stopped.
            if progress.ended_ms is None or "ended_ms" in fields or not fields.get("is_stopped"):
                self._stored[number] = progress
