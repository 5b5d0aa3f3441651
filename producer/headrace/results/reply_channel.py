"""The jobs whose outcomes a client receives on its reply channel, where workers announce many in one message.

Bookkeeping without I/O, a part of `Subscriptions`. The reply channel can miss outcomes: of a job that finished
before the channel was subscribed to, that another client cancelled, or that a plain Celery worker ran. So the
stored outcomes are fetched too: once when a job is first waited for, and every few seconds for all that remain.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.errors import HeadraceError
from headrace.results.waiter import Waiter
from headrace.wire.outcome import Outcome

#: A wait for fewer own jobs subscribes to a channel for each job instead, which misses no outcome.
_MIN_BULK_JOBS = 64
#: Seconds a single prediction waits on a reply channel; then it subscribes to the channel of its job. A client
#: that waits for many is busy: its jobs take longer, and a subscription for each would cost more than they do.
SINGLE_WAIT_SECONDS, BUSY_WAIT_SECONDS = 0.05, 1.0
#: The jobs that a busy client waits for.
_BUSY_JOBS = 8
#: Seconds between two fetches of the outcomes of all remaining jobs.
REFETCH_SECONDS = 2.0


def bulk_jobs(own: set[str]) -> set[str]:
    """Return the jobs to wait for on the reply channel: all that the client submitted itself, or none if few."""
    return own if len(own) >= _MIN_BULK_JOBS else set()


def single_wait_seconds(waiting: int) -> float:
    """Return how long a single prediction waits on the reply channel of a client that waits for so many jobs."""
    return SINGLE_WAIT_SECONDS if waiting < _BUSY_JOBS else BUSY_WAIT_SECONDS


class ReplyChannel:
    """The waiters of each job that is announced on the reply channel."""

    def __init__(self) -> None:
        #: By job. Most jobs have one waiter, and share the tuple with its other jobs.
        self._waiters: dict[str, tuple[Waiter, ...]] = {}
        self._to_fetch: set[str] = set()
        self._subscribe_sent = self._is_subscribed = False

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def has_work(self) -> bool:
        """True if there is a command to send to Redis."""
        return bool(self._to_fetch or (self._waiters and not self._subscribe_sent))

    def add(self, waiter: Waiter) -> None:
        """Add a waiter to its own jobs."""
        alone = (waiter,)
        for job in waiter.own:
            others = self._waiters.get(job)
            self._waiters[job] = alone if others is None else others + alone
        if self._is_subscribed:
            self._confirm(waiter.own, fetch=waiter.fetch_stored)

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter from those of its own jobs that have no outcome yet."""
        for job in waiter.own & waiter.jobs:
            others = tuple(other for other in self._waiters.get(job, ()) if other is not waiter)
            if others:
                self._waiters[job] = others
            else:
                self._waiters.pop(job, None)

    def start_subscribing(self) -> bool:
        """Return True once, if the channel is to be subscribed to now."""
        if self._subscribe_sent or not self._waiters:
            return False
        self._subscribe_sent = True
        return True

    def on_subscribed(self) -> None:
        """Handle Redis's confirmation of the subscription."""
        self._is_subscribed = True
        self._confirm(set(self._waiters), fetch=True)

    def _confirm(self, jobs: set[str], *, fetch: bool) -> None:
        """Tell the waiters that no announcement is missed from now on, and fetch outcomes of before."""
        if fetch:
            self._to_fetch |= jobs
        for job in jobs:
            for waiter in self._waiters.get(job, ()):
                waiter.on_subscribed(job)

    def on_outcomes(self, outcomes: Mapping[str, Outcome]) -> None:
        """Pass outcomes, announced or fetched, to the waiters of their jobs."""
        by_waiter: dict[Waiter, dict[str, Outcome]] = {}
        for job, outcome in outcomes.items():
            for waiter in self._waiters.pop(job, ()):
                by_waiter.setdefault(waiter, {})[job] = outcome
        for waiter, arrived in by_waiter.items():
            waiter.on_outcomes(arrived)

    def refetch(self) -> None:
        """Fetch the outcomes of all remaining jobs."""
        if self._is_subscribed:
            self._to_fetch = set(self._waiters)

    def next_fetch(self, limit: int) -> list[str]:
        """Return at most `limit` jobs whose outcome may be stored already."""
        jobs: list[str] = []
        while self._to_fetch and len(jobs) < limit:
            job = self._to_fetch.pop()
            if job in self._waiters:
                jobs.append(job)
        return jobs

    def start_over(self) -> None:
        """Start over on a new connection, which is not subscribed to the channel yet."""
        self._subscribe_sent = self._is_subscribed = False
        self._to_fetch.clear()

    def fail(self, error: HeadraceError) -> None:
        """End all waits with an error."""
        waiters = {id(waiter): waiter for waiters in self._waiters.values() for waiter in waiters}
        for waiter in waiters.values():
            waiter.on_error(error)
        self._waiters.clear()
        self.start_over()
