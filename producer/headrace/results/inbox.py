"""The jobs of a client that it waits for in bulk: workers tell of them together, in one channel.

Bookkeeping without I/O, a part of `Subscriptions`. What the channel may miss (a job that ended before it was
listened to, one cancelled by somebody else, one run by a plain Celery worker) is found by looking at the
stored outcomes: once when a job is first waited for, and all that are left every few seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError
from headrace.wire.outcome import Outcome

if TYPE_CHECKING:
    from headrace.results.subscriptions import Watcher

#: Jobs from which on a wait goes by the inbox. Of fewer a channel for each tells, also where no worker of
#: ours ran them.
BULK = 64
#: Seconds a single prediction waits by the inbox; then a channel of its own hears also what others announce.
SOON = 0.05
#: Seconds between two looks at what is left.
LOOK_AGAIN = 2.0


def in_bulk(own: set[str]) -> set[str]:
    """The jobs to wait for by the inbox, of those that a wait has and the client submitted itself."""
    return own if len(own) >= BULK else set()


class ReplyChannel:
    """Who waits for which jobs."""

    def __init__(self) -> None:
        #: Of each job; most have one, and share the tuple with its other jobs.
        self._watchers: dict[str, tuple[Watcher, ...]] = {}
        self._to_look: set[str] = set()
        self._listened_to = self._asked = False

    def __len__(self) -> int:
        return len(self._watchers)

    def add(self, watcher: Watcher) -> None:
        """Begin to wait for the watcher's own jobs."""
        alone = (watcher,)
        for job in watcher.own:
            others = self._watchers.get(job)
            self._watchers[job] = alone if others is None else others + alone
        if self._listened_to:
            self._hold(watcher.own, look=watcher.look)

    def remove(self, watcher: Watcher) -> None:
        """End the waiting of one that has not had all its outcomes."""
        for job in watcher.own & watcher.jobs:
            others = tuple(one for one in self._watchers.get(job, ()) if one is not watcher)
            if others:
                self._watchers[job] = others
            else:
                self._watchers.pop(job, None)

    @property
    def has_work(self) -> bool:
        """Whether there is something to ask Redis for."""
        return bool(self._to_look or (self._watchers and not self._asked))

    def is_to_be_subscribed(self) -> bool:
        """Whether to subscribe to the channel now."""
        if self._asked or not self._watchers:
            return False
        self._asked = True
        return True

    def confirmed(self) -> None:
        """Redis has confirmed the subscription."""
        self._listened_to = True
        self._hold(set(self._watchers), look=True)

    def _hold(self, jobs: set[str], *, look: bool) -> None:
        """From now on nothing of these jobs is missed; what was before is to be looked for."""
        if look:
            self._to_look |= jobs
        for job in jobs:
            for watcher in self._watchers.get(job, ()):
                watcher.on_subscribed(job)

    def on_outcome(self, outcomes: Mapping[str, Outcome]) -> None:
        """Outcomes were told, or found."""
        arrived: dict[Watcher, dict[str, Outcome]] = {}
        for job, outcome in outcomes.items():
            for watcher in self._watchers.pop(job, ()):
                arrived.setdefault(watcher, {})[job] = outcome
        for watcher, some in arrived.items():
            watcher.on_outcome(some)

    def look_again(self) -> None:
        """Look at all that is left."""
        if self._listened_to:
            self._to_look = set(self._watchers)

    def next_to_look_at(self, most: int) -> list[str]:
        """Jobs whose outcome may be stored already."""
        jobs: list[str] = []
        while self._to_look and len(jobs) < most:
            job = self._to_look.pop()
            if job in self._watchers:
                jobs.append(job)
        return jobs

    def start_over(self) -> None:
        """A new connection: it listens to nothing yet."""
        self._listened_to = self._asked = False
        self._to_look.clear()

    def fail(self, error: HeadraceError) -> None:
        """End all waiting."""
        for watcher in {id(one): one for watchers in self._watchers.values() for one in watchers}.values():
            watcher.on_error(error)
        self._watchers.clear()
        self.start_over()
