"""Which result channels to listen to, and who waits for what: the bookkeeping of waiting, without I/O.

An outcome can be stored just before its channel is subscribed to, so each job is looked at once after its
subscription is confirmed; and after a reconnect every job is, for what was announced while nobody listened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

from headrace.errors import HeadraceError
from headrace.results.inbox import ReplyChannel
from headrace.wire.outcome import Outcome

#: Channels one SUBSCRIBE names; also the confirmations to be outstanding before more are asked for: Redis
#: closes a connection that leaves 8 to 32 MB of replies unread.
CHUNK = 1000


class Watcher(Protocol):
    """Somebody who waits for outcomes."""

    #: The jobs still waited for.
    jobs: set[str]
    #: Those of them that are told of in the client's inbox; the others have a channel each.
    own: set[str]
    #: False for jobs that are submitted only after their subscription is confirmed.
    look: bool

    def on_subscribed(self, job: str) -> None:
        """From now on no announcement of the job is missed."""

    def on_outcome(self, outcomes: Mapping[str, Outcome]) -> None:
        """Jobs have their outcomes."""

    def on_error(self, error: HeadraceError) -> None:
        """There is no use in waiting on."""


class _Channel:
    __slots__ = ("look", "pending", "watchers")

    def __init__(self) -> None:
        self.watchers: list[Watcher] = []
        self.pending = 0
        self.look = False


class Subscriptions:
    """The channels of one connection. A job whose last watcher leaves is unsubscribed from."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._to_subscribe: deque[str] = deque()
        self._to_look: set[str] = set()
        self._idle: set[str] = set()
        self._outstanding = 0
        self.inbox = ReplyChannel()

    def __len__(self) -> int:
        return len(self._channels) + len(self.inbox)

    @property
    def has_work(self) -> bool:
        """Whether there is something to ask Redis for."""
        return bool(self._to_subscribe or self._to_look or self._idle or self.inbox.has_work)

    def add(self, watcher: Watcher) -> None:
        """Begin to wait."""
        self.inbox.add(watcher)
        for job in watcher.jobs - watcher.own:
            channel = self._channels.setdefault(job, _Channel())
            channel.watchers.append(watcher)
            channel.look = channel.look or watcher.look
            # Also where another watcher has the channel already: the reply says from when it holds for us.
            channel.pending += 1
            self._to_subscribe.append(job)
            self._idle.discard(job)

    def remove(self, watcher: Watcher) -> None:
        """End the waiting of one that has not had all its outcomes."""
        self.inbox.remove(watcher)
        for job in watcher.jobs - watcher.own:
            channel = self._channels.get(job)
            if channel is not None and watcher in channel.watchers:
                channel.watchers.remove(watcher)
                self._leave(job, channel)

    def on_subscribed(self, job: str) -> None:
        """Redis has confirmed a subscription."""
        self._outstanding = max(0, self._outstanding - 1)
        channel = self._channels.get(job)
        if channel is None:
            return
        channel.pending = max(0, channel.pending - 1)
        if channel.pending:
            return
        if channel.watchers and channel.look:
            self._to_look.add(job)
        for watcher in channel.watchers:
            watcher.on_subscribed(job)
        self._leave(job, channel)

    def on_outcome(self, outcomes: Mapping[str, Outcome]) -> None:
        """Outcomes were announced, or found."""
        self.inbox.on_outcome(outcomes)
        for job in self._channels.keys() & outcomes.keys():
            channel = self._channels[job]
            watchers, channel.watchers = channel.watchers, []
            for watcher in watchers:
                watcher.on_outcome({job: outcomes[job]})
            self._leave(job, channel)

    def _leave(self, job: str, channel: _Channel) -> None:
        if not channel.watchers and not channel.pending:
            self._idle.add(job)

    def next_to_subscribe(self) -> list[str]:
        """Jobs to subscribe to now, in one command; empty while enough are outstanding."""
        if self._outstanding >= CHUNK or not self._to_subscribe:
            return []
        jobs = [self._to_subscribe.popleft() for _ in range(min(CHUNK, len(self._to_subscribe)))]
        self._outstanding += len(jobs)
        return jobs

    def next_to_look_at(self) -> list[str]:
        """Jobs whose outcome may be stored already, in one command."""
        jobs = [self._to_look.pop() for _ in range(min(CHUNK, len(self._to_look)))]
        waited = [job for job in jobs if (channel := self._channels.get(job)) and channel.watchers]
        return waited + self.inbox.next_to_look_at(CHUNK - len(waited))

    def next_to_unsubscribe(self) -> list[str]:
        """Jobs nobody waits for any more, in one command."""
        jobs = [self._idle.pop() for _ in range(min(CHUNK, len(self._idle)))]
        for job in jobs:
            del self._channels[job]
        return jobs

    def start_over(self) -> None:
        """A new connection: it is subscribed to nothing, and anything may have happened meanwhile."""
        self._channels = {job: channel for job, channel in self._channels.items() if channel.watchers}
        for channel in self._channels.values():
            channel.pending = 1
            channel.look = True
        self._to_subscribe = deque(self._channels)
        self._to_look = set()
        self._idle = set()
        self._outstanding = 0
        self.inbox.start_over()

    def fail(self, error: HeadraceError) -> None:
        """End all waiting."""
        for watcher in self._watchers():
            watcher.on_error(error)
        self.inbox.fail(error)
        self._channels.clear()
        self.start_over()

    def _watchers(self) -> Iterable[Watcher]:
        return {
            id(watcher): watcher for channel in self._channels.values() for watcher in channel.watchers
        }.values()
