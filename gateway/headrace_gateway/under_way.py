"""The request under way in this task: what its limits count, and whether its caller still waits."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from starlette.requests import Request
from starlette.types import Receive, Scope

from headrace.catalog.callers import Rate
from headrace.catalog.rate import Grant


class RequestUnderWay:
    """A request that has no whole answer yet."""

    __slots__ = ("_receive", "_scope", "grant", "leave")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope, self._receive = scope, receive
        #: Ends the count of the request, if it was counted.
        self.leave: Callable[[], None] | None = None
        #: The last grant, and the rate that granted it.
        self.grant: tuple[Rate, Grant] | None = None

    async def has_hung_up(self) -> bool:
        """Return True if the caller has closed the connection. Only for a request whose body has been read."""
        return await Request(self._scope, self._receive).is_disconnected()


#: None outside of a request.
request_under_way: ContextVar[RequestUnderWay | None] = ContextVar("headrace_request", default=None)
