"""The frame of every request: its line in the log, its metrics, and the headers of its answer.

A plain ASGI app around the others: nothing is copied, and no stream is wrapped besides the head of the answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace_gateway.metrics import NO_ROUTE, RequestMetrics
from headrace_gateway.problems import Problem
from headrace_gateway.request_log import RequestLog
from headrace_gateway.state import Gateway

log = logging.getLogger("headrace.gateway")

#: The status in the log of a request whose caller hung up before the answer, as nginx writes it.
_HUNG_UP = 499
#: Headers of every answer that does not set them itself.
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_NAMES = frozenset(name for name, _ in _HEADERS)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Frame:
    """An ASGI app around `app`. `gateway` returns what the routes share."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        gateway: Callable[[], Gateway],
        metrics: RequestMetrics,
        request_log: RequestLog | None,
    ) -> None:
        self._app, self._gateway, self._metrics, self._log = app, gateway, metrics, request_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        started = time.perf_counter()
        try:
            if self._gateway().is_ending.is_set():
                await _answer_problem(_shutting_down(), scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except ClientDisconnect:
            answer.status = _HUNG_UP
        except Exception:  # a fault is logged and answered, and the process goes on
            log.exception("a request failed")
            answer.status = answer.status or 500
            if not answer.started:
                problem = Problem(500, "internal", "the gateway failed; its log has the cause")
                await _answer_problem(problem, scope, receive, answer)
        finally:
            self._record(scope, answer, time.perf_counter() - started)

    def _record(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        route = scope.get("route")
        template = route.path if route is not None else NO_ROUTE
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.record(method, template, answer.status, seconds)
        self._metrics.show_waiting(len(self._gateway().waits))
        if self._log is not None:
            fields: dict[str, object] = {
                "method": method,
                "route": template,
                "status": answer.status,
                "bytes": answer.size,
                "ms": round(seconds * 1000, 2),
            }
            if caller := scope.get("caller"):
                fields["caller"] = caller
            if answer.job:
                fields["job"] = answer.job
            self._log.write(**fields)


class _Answer:
    """The `send` of a request: it adds headers to the head of the answer, and remembers what was sent."""

    __slots__ = ("_send", "job", "size", "started", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status, self.size, self.started = _HUNG_UP, 0, False
        self.job: str | None = None

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
            return self._send(message)
        if message["type"] == "http.response.start":
            if self.started:  # by an answer that then failed
                raise RuntimeError("an error cannot be answered behind the head of another answer")
            self.status, self.started = message["status"], True
            headers = list(message["headers"])
            names = set()
            for name, value in headers:
                names.add(name)
                if name == b"headrace-job":
                    self.job = value.decode("latin-1")
            headers += _HEADERS if names.isdisjoint(_NAMES) else [h for h in _HEADERS if h[0] not in names]
            return self._send({**message, "headers": headers})
        return self._send(message)


def _shutting_down() -> Problem:
    return Problem(
        503,
        "shutting-down",
        "this gateway is shutting down and took nothing from this request; repeat it",
        headers={"Connection": "close", "Retry-After": "1"},
    )


async def _answer_problem(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    await problem.response(scope["path"])(scope, receive, send)
