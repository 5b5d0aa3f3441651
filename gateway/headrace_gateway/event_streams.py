"""Streams of events (SSE): a waiter for each connection, and one task for all of them.

A stream that waits costs a request and its waiter: outcomes come over the one subscription of the client's
listener, and one task looks for jobs that have begun to run, writes comments to connections that are silent, and
ends the streams with the process. Nothing is replayed: a stream tells the state of jobs, so it has no history.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator, Mapping

import msgspec

from headrace.errors import HeadraceError
from headrace.wire.outcome import Outcome, Status
from headrace_gateway.job_states import read_states
from headrace_gateway.state import Gateway

#: Seconds between two looks for jobs that have begun to run, or wait again.
LOOK_SECONDS = 2.0
#: Seconds of silence after which a comment is written, so that no proxy takes a connection for dead.
COMMENT_SECONDS = 15.0
#: Outcomes that wait in memory for a slow reader. Of those behind them only the ids do.
_OUTCOMES_IN_MEMORY = 16


class Event(msgspec.Struct, frozen=True):
    """A job's outcome, or its new status without one; None for an outcome that is to be read again."""

    job: str
    state: Outcome | Status | None


class EventStream:
    """The events of one connection: a `Waiter` of its jobs, and the events that are not written yet."""

    __slots__ = ("_events", "_has_ended", "_wakeup", "_written_at", "fetch_stored", "jobs", "own", "status")

    def __init__(self, jobs: set[str], *, status: Status | None = None) -> None:
        #: Those of a `Waiter`.
        self.jobs, self.own, self.fetch_stored = jobs, set[str](), True
        #: The status of the only job, whose changes are events too; None if only outcomes are.
        self.status = status
        self._events: deque[Event] = deque()
        self._wakeup = asyncio.Event()
        self._written_at = _now()
        self._has_ended = False

    def on_subscribed(self, job: str) -> None:
        """Do nothing: the listener fetches what was stored before."""

    def on_outcomes(self, outcomes: Mapping[str, Outcome]) -> None:
        """Add the outcomes of some of the jobs."""
        self.jobs.difference_update(outcomes)
        for job, outcome in outcomes.items():
            self.put(job, outcome if len(self._events) < _OUTCOMES_IN_MEMORY else None)

    def on_error(self, error: HeadraceError) -> None:  # noqa: ARG002  # the client connects again, and gets a problem
        """End the stream: no further outcome will arrive."""
        self.end()

    def on_status(self, status: Status) -> None:
        """Add the status of the only job, which has no outcome yet, if it is a new one."""
        if status != self.status:
            self.status = status
            for job in self.jobs:
                self.put(job, status)

    def put(self, job: str, state: Outcome | Status | None) -> None:
        """Add an event."""
        self._events.append(Event(job, state))
        self._wakeup.set()

    def end(self) -> None:
        """End the stream once its events are written, though some jobs have no outcome."""
        self._has_ended = True
        self._wakeup.set()

    @property
    def is_over(self) -> bool:
        """True if nothing is left to write, and nothing will arrive."""
        return not self._events and (self._has_ended or not self.jobs)

    def wake_if_silent(self) -> None:
        """Let `next` return, for a comment, if nothing was written for long."""
        if self._is_silent():
            self._wakeup.set()

    async def next(self) -> Event | None:
        """Wait for the next event, and return it. Return None if there is a comment to write, or at the end."""
        while not self._events and not self.is_over and not self._is_silent():
            self._wakeup.clear()
            await self._wakeup.wait()
        self._written_at = _now()
        return self._events.popleft() if self._events else None

    def _is_silent(self) -> bool:
        return _now() - self._written_at >= COMMENT_SECONDS


class OpenStreams:
    """The open streams of one gateway, and the task that looks after all of them while there are some."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._streams: set[EventStream] = set()
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def serve(self, stream: EventStream) -> Iterator[None]:
        """Wait for the outcomes of a stream's jobs, and look after its connection, until the block ends."""
        if self._gateway.is_ending.is_set():
            stream.end()
        listener = self._gateway.client._session.listener  # noqa: SLF001  # it takes any waiter, and the client none
        self._streams.add(stream)
        listener.start(stream)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_after(), name="headrace-event-streams")
        try:
            yield
        finally:
            self._streams.discard(stream)
            listener.unsubscribe(stream)

    async def _look_after(self) -> None:
        while self._streams:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._gateway.is_ending.wait()
            except TimeoutError:
                with contextlib.suppress(HeadraceError):  # an outage: the next look is soon
                    await self._look_for_changes()
                for stream in self._streams:
                    stream.wake_if_silent()
            else:
                for stream in self._streams:
                    stream.end()
                return

    async def _look_for_changes(self) -> None:
        """Tell the streams of one job if it has begun to run, or waits again. The listener brings outcomes."""
        watched: dict[str, list[EventStream]] = {}
        for stream in self._streams:
            if stream.status is not None:
                for job in stream.jobs:
                    watched.setdefault(job, []).append(stream)
        for state in await read_states(self._gateway, list(watched)):
            if state.outcome is None:
                for stream in watched[state.job]:
                    stream.on_status(state.status)


def _now() -> float:
    return asyncio.get_running_loop().time()


def encode_event(event: str, identity: str, document: Mapping[str, object]) -> bytes:
    """Return an event as it is written. Encoded JSON holds no line feed, so the data is one line."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (event.encode(), identity.encode(), msgspec.json.encode(document))
