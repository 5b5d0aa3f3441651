"""The decisions of a listener, without I/O: how much to claim, and how long to keep what was claimed."""

from __future__ import annotations

import math
from collections import deque

from headrace.client.common import check_timeout
from headrace.errors import InvalidInput
from headrace.results.listening import FinishedJob
from headrace.wire.listening import Entry
from headrace.wire.names import check_short_name

#: Most ended jobs of a claim.
MAX_CLAIM = 64
#: Seconds for which claimed jobs may wait for those before them; then other listeners get their chance.
HOLD_SECONDS = 1.0
#: Seconds between two looks of an idle listener that no message wakes.
POLL_SECONDS = 10.0
#: Seconds between two sweeps for entries that are missing, and between two pages of a sweep.
SWEEP_SECONDS, SWEEP_PAGE_SECONDS = 300.0, 1.0


class ListenState:
    """The claimed jobs of a listener, and its next step. Times are monotonic, in seconds."""

    def __init__(self, name: str, *, lease: float, max_deliveries: int, idle: float | None) -> None:
        self.name = check_short_name("name", name)
        seconds = check_timeout(lease, "lease")
        if seconds is None or seconds < HOLD_SECONDS:
            raise InvalidInput(f"`lease` is the seconds that handling a job may take, at least {HOLD_SECONDS:g}")
        if isinstance(max_deliveries, bool) or not isinstance(max_deliveries, int) or max_deliveries < 1:
            raise InvalidInput("`max_deliveries` is an integer above 0")
        #: Seconds that a claim lasts, and the most deliveries of a job.
        self.lease, self.max_deliveries = seconds + HOLD_SECONDS, max_deliveries
        #: Seconds without a job after which the listener ends; None: never.
        self.idle = check_timeout(idle, "idle")
        #: The number of jobs to claim next.
        self.claim_size = 1
        #: The entry of the job that the caller handles; None if there is none.
        self.in_hand: Entry | None = None
        self._claimed: deque[tuple[Entry, FinishedJob]] = deque()
        self._claimed_at = self._active_at = 0.0
        self._sweep_start, self._sweep_at = 0, -math.inf

    def start(self, now: float) -> None:
        """Note that the caller asks for a job."""
        self._active_at = now

    def on_claimed(self, jobs: tuple[tuple[Entry, FinishedJob], ...], now: float) -> None:
        """Note what was claimed by a call that was sent at `now`."""
        self._claimed.extend(jobs)
        self._claimed_at = now

    def next_job(self, now: float) -> FinishedJob | None:
        """Take the next job into the hand; None if none is left, or the others have waited for too long."""
        if not self._claimed or now - self._claimed_at > HOLD_SECONDS:
            return None
        self.in_hand, job = self._claimed.popleft()
        if not self._claimed:  # all of them were handled within the time: claim more
            self.claim_size = min(MAX_CLAIM, 2 * self.claim_size)
        return job

    def take_stale(self) -> list[Entry]:
        """Remove and return the claimed entries that are not to be handed out."""
        stale = [entry for entry, _ in self._claimed]
        if stale:
            self.claim_size = 1
            self._claimed.clear()
        return stale

    def has_expired(self, now: float) -> bool:
        """Return True if the claim of the job in hand has ended."""
        return now - self._claimed_at >= self.lease

    def wait_seconds(self, next_due: float | None, now: float) -> float | None:
        """Return the seconds to wait for an ended job; None if the listener has been idle for its time."""
        seconds = POLL_SECONDS if next_due is None else min(POLL_SECONDS, next_due)
        seconds = max(0.0, min(seconds, self._sweep_at - now))
        if self.idle is None:
            return seconds
        remaining = self._active_at + self.idle - now
        return min(seconds, remaining) if remaining > 0 else None

    def next_sweep(self, now: float) -> int | None:
        """Return where the next page of the sweep for missing entries starts; None before it is time for it."""
        return self._sweep_start if now >= self._sweep_at else None

    def on_swept(self, following: int | None, now: float) -> None:
        """Note where the next page starts, 0 after the last one; None if Redis was away."""
        self._sweep_start = following or 0
        self._sweep_at = now + (SWEEP_PAGE_SECONDS if following else SWEEP_SECONDS)
