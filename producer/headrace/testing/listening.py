"""The listeners of the in-memory clients: they yield what has ended, and never wait."""

from __future__ import annotations

from collections import defaultdict, deque
from types import TracebackType
from typing import Self

import msgspec

from headrace.results.listening import FinishedJob
from headrace.wire.message import Job
from headrace.wire.outcome import Outcome


class InMemoryListening:
    """The ended jobs of each name that no listener has handled, the oldest first."""

    def __init__(self) -> None:
        self._jobs: defaultdict[str, deque[FinishedJob]] = defaultdict(deque)

    def add(self, job: Job, outcome: Outcome) -> None:
        """Store the end of a job for its listeners, if it has any."""
        if job.listen is not None:
            finished = FinishedJob(
                id=job.id, model=job.model, outcome=outcome, metadata=dict(job.metadata or {}), delivery=1
            )
            self._jobs[job.listen].append(finished)

    def listener(self, name: str) -> InMemoryListener:
        """Return a listener of a name."""
        return InMemoryListener(name, self._jobs[name])


class InMemoryListener:
    """The ended jobs of one name, with the methods of `headrace.Listener`."""

    def __init__(self, name: str, jobs: deque[FinishedJob]) -> None:
        self.name = name
        self._jobs = jobs
        self._in_hand: FinishedJob | None = None
        #: What failed is delivered to the next listener.
        self._failed: list[FinishedJob] = []
        self._stopped = False

    def stop(self) -> None:
        """End the iteration when the job in hand has been handled; see `Listener.stop`."""
        self._stopped = True

    def fail(self, error: str) -> None:  # noqa: ARG002  # the signature of Listener
        """Let the job in hand be delivered to the next listener; see `Listener.fail`."""
        if self._in_hand is not None:
            self._failed.append(msgspec.structs.replace(self._in_hand, delivery=self._in_hand.delivery + 1))
        self._in_hand = None

    def close(self) -> None:
        """Leave the rest to the next listener; see `Listener.close`."""
        self._stopped = True
        self._jobs.extend(self._failed)
        self._failed.clear()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FinishedJob:
        if self._stopped or not self._jobs:
            self._in_hand = None
            self.close()
            raise StopIteration
        self._in_hand = self._jobs.popleft()
        return self._in_hand

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.fail(kind.__name__)
        self.close()


class AsyncInMemoryListener:
    """The ended jobs of one name, with the methods of `headrace.AsyncListener`. It never waits."""

    def __init__(self, listener: InMemoryListener) -> None:
        self._listener = listener
        self.name = listener.name

    def stop(self) -> None:
        """End the iteration when the job in hand has been handled; see `AsyncListener.stop`."""
        self._listener.stop()

    async def fail(self, error: str) -> None:
        """Let the job in hand be delivered to the next listener; see `AsyncListener.fail`."""
        self._listener.fail(error)

    async def close(self) -> None:
        """Leave the rest to the next listener; see `AsyncListener.close`."""
        self._listener.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FinishedJob:
        try:
            return next(self._listener)
        except StopIteration:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.__exit__(kind, error, traceback)
