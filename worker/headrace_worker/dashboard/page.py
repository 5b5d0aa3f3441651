"""The base class of the pages that Headrace adds to Flower; each page is also served as JSON under /api."""

from __future__ import annotations

import logging
from base64 import b64decode
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from flower.views import BaseHandler
from tornado import ioloop, web

from headrace.clock import from_unix_ms
from headrace.connection.commands import Operation
from headrace.dead_letters.bulk import BulkOperation, BulkResult
from headrace.errors import HeadraceError, InvalidInput, ModelError, UnknownLetter, UnknownModel, UnknownRun
from headrace_worker.rollout.alias_moves import AliasConflict

log = logging.getLogger("headrace.dashboard")

T = TypeVar("T")

#: Milliseconds between two refreshes of a page that changes by itself.
_REFRESH_MS = 5000


class Page(BaseHandler):  # type: ignore[misc]  # flower has no types
    """A page behind the login: HTML, or JSON under /api."""

    def prepare(self) -> None:
        """Require the login. Raises HTTPError."""
        if not self.current_user:
            raise web.HTTPError(401 if self.is_json or not self.application.options.auth else 403)

    def set_default_headers(self) -> None:
        """Forbid framing, content sniffing and caches."""
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Cache-Control", "no-store")

    def check_xsrf_cookie(self) -> None:
        """Accept a change only from a page of this site, with any kind of login. Raises HTTPError."""
        if self.request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise web.HTTPError(403, "Cross-site request forbidden")
        web.RequestHandler.check_xsrf_cookie(self)

    @property
    def is_json(self) -> bool:
        """True for a request under /api."""
        return "/api/" in self.request.path

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the error's sentence: JSON under /api, a page for Headrace's errors, else Flower's page."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, HeadraceError):
            status_code = _status(error)
            self.set_status(status_code)
            message = str(error)
        else:
            message = getattr(error, "log_message", None) or self._reason
        if self.is_json:
            if status_code == 401:
                self.set_header("WWW-Authenticate", 'Basic realm="flower"')
            self.finish({"error": message})
        elif isinstance(error, HeadraceError):
            self.render("request_error.html", message=message)
        else:
            super().write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log errors of Headrace as their sentence, all others with a traceback."""
        if isinstance(value, HeadraceError):
            log.warning("%s", value)
        else:
            super().log_exception(typ, value, tb)

    def require_actions(self) -> None:
        """Refuse a change while Flower is read-only. Raises HTTPError."""
        if self.application.options.read_only:
            raise web.HTTPError(403, "Flower is read-only: start it with --allow-actions")

    @property
    def user(self) -> str:
        """The user's name for the log: from the login, else the address."""
        if isinstance(self.current_user, str):
            return self.current_user
        if self.current_user and self.application.options.basic_auth:  # Flower has compared the whole header
            credentials = self.request.headers["Authorization"].split()[1]
            return b64decode(credentials).decode().partition(":")[0]
        return self.request.remote_ip or "unknown"

    async def run_operation(self, operation: Operation[T]) -> T:
        """Run an operation on Redis in a thread, and return its value. Raises BrokerUnavailable."""
        return await self.in_thread(lambda: self.application.session.run(operation))

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a blocking function outside Flower's event loop, and return its value."""
        return await ioloop.IOLoop.current().run_in_executor(None, function)

    async def run_to_the_end(self, bulk: BulkOperation) -> BulkResult:
        """Run a replay or purge without a rate, and return its result. Raises UnknownModel, BrokerUnavailable."""

        def run() -> BulkResult:
            while not bulk.finished:
                self.application.session.run(bulk.step(0.0))
            return bulk.result

        return await self.in_thread(run)

    def answer(self, template: str, content: msgspec.Struct, **context: Any) -> None:
        """Answer with `content`: as JSON under /api, else by the template; `context` is for the template alone."""
        if self.is_json:
            self.set_header("Content-Type", "application/json; charset=UTF-8")
            self.finish(msgspec.json.encode(content))
        else:
            read_only = self.application.options.read_only
            context = {"refresh_ms": _REFRESH_MS, **context}
            self.render(template, content=content, utc_time=_utc_time, read_only=read_only, **context)

    def query_text(self, name: str) -> str | None:
        """Return a text of the query; None where it is missing or empty."""
        text: str = self.get_query_argument(name, "")
        return text or None

    def query_number(self, name: str) -> int:
        """Return a non-negative number of the query; 0 where it is missing or not a number."""
        text = self.get_query_argument(name, "0")
        return int(text[:9]) if text[:9].isdecimal() and text.isascii() else 0


def _status(error: HeadraceError) -> int:
    match error:
        case UnknownLetter() | UnknownModel() | UnknownRun():
            return 404
        case InvalidInput():
            return 400
        case ModelError() | AliasConflict():
            return 409
        case _:
            return 503


def _utc_time(unix_ms: int) -> str:
    """Format unix milliseconds as a UTC date and time, to the second."""
    return from_unix_ms(unix_ms).strftime("%Y-%m-%d %H:%M:%S")
