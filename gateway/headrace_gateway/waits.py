"""The waits of requests for an outcome: the end of the process ends them, and so does a caller who hangs up.

Only a read tells that a connection was closed, and a request that waits reads nothing. So one task looks at all
waits from time to time: a request that is answered soon costs no look.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.requests import ClientDisconnect

from headrace_gateway.under_way import RequestUnderWay, request_under_way

#: Seconds between two looks at the callers that wait.
_LOOK_SECONDS = 1.0


class Wait:
    """The wait of one request. An async context manager."""

    __slots__ = ("_has_hung_up", "_limit", "_waits", "request")

    def __init__(self, waits: set[Wait], seconds: float | None) -> None:
        self._waits, self._limit = waits, asyncio.timeout(seconds)
        self._has_hung_up = False
        #: None outside of a request.
        self.request: RequestUnderWay | None = request_under_way.get()

    def end(self) -> None:
        """End the wait with TimeoutError."""
        self._limit.reschedule(asyncio.get_running_loop().time())

    def hang_up(self) -> None:
        """End the wait with ClientDisconnect."""
        self._has_hung_up = True
        self.end()

    async def __aenter__(self) -> None:
        self._waits.add(self)
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waits.discard(self)
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError:
            if self._has_hung_up:
                raise ClientDisconnect from None
            raise


class Waits:
    """The waits of one process."""

    def __init__(self) -> None:
        self._waits: set[Wait] = set()

    def __len__(self) -> int:
        return len(self._waits)

    def wait(self, *, is_ending: bool) -> Wait:
        """Return a new wait; one that ends at once if the process is ending."""
        return Wait(self._waits, 0 if is_ending else None)

    def end(self) -> None:
        """End all waits."""
        for wait in self._waits:
            wait.end()

    async def watch_callers(self) -> None:
        """End the waits of callers who hang up, until cancelled."""
        former: set[Wait] = set()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for wait in former & self._waits:
                if wait.request is not None and await wait.request.has_hung_up() and wait in self._waits:
                    wait.hang_up()
            former = set(self._waits)
