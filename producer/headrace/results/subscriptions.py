"""The result channels that one connection subscribes to, and the waiters for each job: bookkeeping without I/O.

An outcome can be stored just before its channel is subscribed to. So the stored outcome of a job is fetched once
after its subscription is confirmed, and those of all jobs after a reconnect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from headrace.errors import HeadraceError
from headrace.results.reply_channel import ReplyChannel
from headrace.results.waiter import Waiter
from headrace.wire.outcome import Outcome

#: Channels in one SUBSCRIBE, and jobs in one MGET. No further SUBSCRIBE is sent while this many confirmations are
#: outstanding: Redis closes a connection that leaves 8 to 32 MB of replies unread.
JOBS_PER_COMMAND = 1000


class _Channel:
    """The result channel of one job."""

    __slots__ = ("fetch_stored", "unconfirmed", "waiters")

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []
        #: SUBSCRIBE commands for the channel, sent or to be sent, without a confirmation yet.
        self.unconfirmed = 0
        self.fetch_stored = False


class Subscriptions:
    """The channels of one connection. A job is unsubscribed from when its last waiter leaves."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._to_subscribe: deque[str] = deque()
        self._to_fetch: set[str] = set()
        self._to_unsubscribe: set[str] = set()
        self._outstanding = 0
        self.reply_channel = ReplyChannel()

    def __len__(self) -> int:
        return len(self._channels) + len(self.reply_channel)

    @property
    def has_work(self) -> bool:
        """True if there is a command to send to Redis."""
        return bool(self._to_subscribe or self._to_fetch or self._to_unsubscribe or self.reply_channel.has_work)

    def add(self, waiter: Waiter) -> None:
        """Add a waiter to its jobs."""
        self.reply_channel.add(waiter)
        for job in waiter.jobs - waiter.own:
            channel = self._channels.setdefault(job, _Channel())
            channel.waiters.append(waiter)
            channel.fetch_stored = channel.fetch_stored or waiter.fetch_stored
            # Also if the channel is subscribed to already: the waiter needs a confirmation of its own.
            channel.unconfirmed += 1
            self._to_subscribe.append(job)
            self._to_unsubscribe.discard(job)

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter from those of its jobs that have no outcome yet."""
        self.reply_channel.remove(waiter)
        for job in waiter.jobs - waiter.own:
            channel = self._channels.get(job)
            if channel is not None and waiter in channel.waiters:
                channel.waiters.remove(waiter)
                self._unsubscribe_if_unused(job, channel)

    def on_subscribed(self, job: str) -> None:
        """Handle Redis's confirmation of a subscription."""
        self._outstanding = max(0, self._outstanding - 1)
        channel = self._channels.get(job)
        if channel is None:
            return
        channel.unconfirmed = max(0, channel.unconfirmed - 1)
        if channel.unconfirmed:
            return
        if channel.waiters and channel.fetch_stored:
            self._to_fetch.add(job)
        for waiter in channel.waiters:
            waiter.on_subscribed(job)
        self._unsubscribe_if_unused(job, channel)

    def on_outcomes(self, outcomes: Mapping[str, Outcome]) -> None:
        """Pass outcomes, announced or fetched, to the waiters of their jobs."""
        self.reply_channel.on_outcomes(outcomes)
        for job in self._channels.keys() & outcomes.keys():
            channel = self._channels[job]
            waiters, channel.waiters = channel.waiters, []
            for waiter in waiters:
                waiter.on_outcomes({job: outcomes[job]})
            self._unsubscribe_if_unused(job, channel)

    def _unsubscribe_if_unused(self, job: str, channel: _Channel) -> None:
        if not channel.waiters and not channel.unconfirmed:
            self._to_unsubscribe.add(job)

    def next_subscribe(self) -> list[str]:
        """Return the jobs for one SUBSCRIBE now; empty while too many confirmations are outstanding."""
        if self._outstanding >= JOBS_PER_COMMAND or not self._to_subscribe:
            return []
        jobs = [self._to_subscribe.popleft() for _ in range(min(JOBS_PER_COMMAND, len(self._to_subscribe)))]
        self._outstanding += len(jobs)
        return jobs

    def next_fetch(self) -> list[str]:
        """Return the jobs for one MGET: their outcomes may be stored already."""
        jobs = [self._to_fetch.pop() for _ in range(min(JOBS_PER_COMMAND, len(self._to_fetch)))]
        waited_for = [job for job in jobs if (channel := self._channels.get(job)) and channel.waiters]
        return waited_for + self.reply_channel.next_fetch(JOBS_PER_COMMAND - len(waited_for))

    def next_unsubscribe(self) -> list[str]:
        """Return the jobs for one UNSUBSCRIBE: they have no waiter left."""
        jobs = [self._to_unsubscribe.pop() for _ in range(min(JOBS_PER_COMMAND, len(self._to_unsubscribe)))]
        for job in jobs:
            del self._channels[job]
        return jobs

    def start_over(self) -> None:
        """Start over on a new connection: it is subscribed to nothing, and outcomes may have been missed."""
        self._channels = {job: channel for job, channel in self._channels.items() if channel.waiters}
        for channel in self._channels.values():
            channel.unconfirmed = 1
            channel.fetch_stored = True
        self._to_subscribe = deque(self._channels)
        self._to_fetch = set()
        self._to_unsubscribe = set()
        self._outstanding = 0
        self.reply_channel.start_over()

    def fail(self, error: HeadraceError) -> None:
        """End all waits with an error."""
        for waiter in self._waiters():
            waiter.on_error(error)
        self.reply_channel.fail(error)
        self._channels.clear()
        self.start_over()

    def _waiters(self) -> Iterable[Waiter]:
        return {id(waiter): waiter for channel in self._channels.values() for waiter in channel.waiters}.values()
