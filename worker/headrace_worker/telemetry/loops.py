"""The health of the loops that follow something, each in a thread of one process.

A loop reports the begin and the end of each round. An error ends a round, never the loop: `run_rounds` logs it,
and the next round follows. A round that failed as Redis or the store is away counts as a round. One that failed
for another reason does not, so that a loop whose rounds all fail becomes late. `pool_loops` has the loops that run
in every pool process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec
import redis

from headrace.connection.errors import is_wrong_type
from headrace.connection.outage_log import OutageLog, is_outage
from headrace.errors import HeadraceError

log = logging.getLogger("headrace.worker")

#: The errors of a round while Redis or the store is away. A key of another type is none.
_OUTAGES = (redis.RedisError, HeadraceError, OSError)
#: Seconds without a round after which a loop is late whose rounds take a few seconds at most.
LATE_SECONDS = 60.0
#: Seconds until the next round after one that failed: a loop without a pause must not take a processor.
_ERROR_PAUSE = 0.1


class LoopStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a loop at one moment."""

    name: str
    #: Seconds since its last round ended.
    age_seconds: float
    #: The reason why the worker must not count on the loop, for a person; None if all is well.
    problem: str | None


class Loop(Protocol):
    """A loop, or the loops of one name in several processes."""

    @property
    def name(self) -> str:
        """The name, for logs and metrics."""

    def status(self) -> LoopStatus | None:
        """Return the state of the loop now; None before its first round."""


class LoopHealth:
    """The rounds of one loop. `clock` returns monotonic seconds.

    The loop counts as late when no round has ended for `late_after` seconds. A round that fails because Redis is
    away is logged by `outages`.
    """

    def __init__(
        self,
        name: str,
        *,
        late_after: float,
        clock: Callable[[], float] = time.monotonic,
        outages: OutageLog | None = None,
    ) -> None:
        self.name, self._late_after, self._clock = name, late_after, clock
        self.outages = outages or OutageLog(log)
        #: The end of the last round; of a loop whose first round goes on, its begin.
        self._ended_at: float | None = None
        self._thread: threading.Thread | None = None
        self._last_error = ""

    def begin_round(self) -> None:
        """Record that a round of the loop begins, in this thread."""
        self._thread = threading.current_thread()
        if self._ended_at is None:
            self._ended_at = self._clock()

    def end_round(self, error: BaseException | None = None) -> None:
        """Record that a round has ended, with an error or without."""
        if error is None or (isinstance(error, _OUTAGES) and not is_wrong_type(error)):
            self._ended_at, self._last_error = self._clock(), ""
        else:
            self._last_error = f"; its rounds fail: {type(error).__name__}, see the log"

    def status(self) -> LoopStatus | None:
        """Return the state of the loop now; None before its first round."""
        if self._ended_at is None or self._thread is None:
            return None
        age, problem = self._clock() - self._ended_at, None
        if not self._thread.is_alive():
            problem = f"the loop `{self.name}` has ended; restart this process"
        elif age > self._late_after:
            problem = f"the loop `{self.name}` has not completed a round for {age:.0f} s{self._last_error}"
        return LoopStatus(name=self.name, age_seconds=age, problem=problem)

    def run_rounds(self, run_round: Callable[[], None], stop: threading.Event, period: float) -> None:
        """Run a round every `period` seconds until `stop` is set. An error is logged, and the loop goes on.

        A period of 0 is for rounds that wait themselves.
        """
        logged, pause = "", max(period, _ERROR_PAUSE)
        while not stop.wait(pause if logged else period):
            self.begin_round()
            try:
                run_round()
            except Exception as error:  # noqa: BLE001  # no item, however damaged, may end the loop
                self.end_round(error)
                description = f"{type(error).__name__}: {error}"
                if isinstance(error, redis.RedisError) and is_outage(error):
                    self.outages.failed(self.name, error)
                elif description != logged:
                    log.warning(
                        "a round of the loop `%s` failed, the next is in %g s: %s", self.name, pause, description
                    )
                logged = description
            else:
                self.end_round()
                self.outages.succeeded(self.name)
                logged = ""
