"""The wait for the outcome of one new job in asyncio: one future in the table of the reply channel, no queue."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from headrace.connection.future_deadlines import FutureDeadlines
from headrace.errors import HeadraceError
from headrace.wire.outcome import Outcome

if TYPE_CHECKING:
    from headrace.results.aio_listener import AsyncOutcomeListener


class ExpectedOutcome:
    """The outcome of a job that is submitted once this is entered and ready. A context manager.

    No stored outcome is fetched: the job does not exist yet.
    """

    __slots__ = ("_deadlines", "_future", "_listener", "_ready", "is_ready", "jobs", "own")

    fetch_stored = False

    def __init__(self, listener: AsyncOutcomeListener, job: str, deadlines: FutureDeadlines) -> None:
        self.jobs, self.own = {job}, {job}
        #: True if no announcement can be missed.
        self.is_ready = False
        self._listener, self._deadlines = listener, deadlines
        self._future: asyncio.Future[Outcome | HeadraceError | None] = listener.create_future()
        self._ready: asyncio.Future[None] | None = None

    async def ready(self, seconds: float) -> bool:
        """Wait until no announcement can be missed. Return False if that takes more than `seconds`."""
        if not self.is_ready and not self._future.done():
            self._ready = self._listener.create_future()
            self._deadlines.add(self._ready, seconds)
            try:
                await self._ready
            finally:
                self._deadlines.remove(self._ready)
        return self.is_ready

    async def outcome(self, seconds: float) -> Outcome | None:
        """Wait for the outcome, once; None after `seconds`. Raises BrokerUnavailable if Redis refuses."""
        future = self._future
        if not future.done():
            self._deadlines.add(future, seconds)
            try:
                await future
            finally:
                self._deadlines.remove(future)
        arrival = future.result()
        if isinstance(arrival, HeadraceError):
            raise arrival
        return arrival

    def on_subscribed(self, job: str) -> None:  # noqa: ARG002  # the protocol's
        """Note that no announcement can be missed from now on."""
        self.is_ready = True
        self._end_ready()

    def on_outcomes(self, outcomes: Mapping[str, Outcome]) -> None:
        """Receive the outcome."""
        for job, outcome in outcomes.items():
            self.jobs.discard(job)
            self._end(outcome)

    def on_error(self, error: HeadraceError) -> None:
        """Let `outcome` raise the error."""
        self._end(error)
        self._end_ready()

    def _end(self, arrival: Outcome | HeadraceError) -> None:
        if not self._future.done():
            self._future.set_result(arrival)

    def _end_ready(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def __enter__(self) -> Self:
        self._listener.start(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.unsubscribe(self)
