"""Health and metrics on a port of their own: `/live`, `/ready` and `/metrics`, for the platform and Prometheus.

A thread of the main process answers, so that an event loop that hangs is seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from headrace import Client
from headrace.errors import HeadraceError, SettingError
from headrace_gateway.settings import GatewaySettings

#: Seconds for which the answer of Redis is used again, and seconds in which it must come.
_CURRENT_SECONDS, _REDIS_SECONDS = 1.0, 2.0
#: Seconds a client may take to send its request.
_REQUEST_SECONDS = 10.0


class Readiness:
    """Decides whether a gateway should get requests: Redis answers, and the names of the models can be read.

    `problem` returns why it should not besides, or None.
    """

    def __init__(self, settings: GatewaySettings, problem: Callable[[], str | None]) -> None:
        brief = msgspec.structs.replace(settings, connect_timeout=_REDIS_SECONDS, command_timeout=_REDIS_SECONDS)
        self._client, self._problem = Client(settings=brief), problem
        self._lock = threading.Lock()
        self._checked_at, self._error = float("-inf"), ""

    def reason(self) -> str | None:
        """Return why the gateway is not ready, as a sentence; None if it is."""
        if (problem := self._problem()) is not None:
            return problem
        with self._lock:
            if time.monotonic() - self._checked_at > _CURRENT_SECONDS:
                try:
                    self._client.models()
                    self._error = ""
                except HeadraceError as error:
                    self._error = str(error)
                self._checked_at = time.monotonic()
            return self._error or None

    def close(self) -> None:
        """Close the connection to Redis."""
        self._client.close()


class HealthServer:
    """Listens from its construction on. Raises SettingError if it cannot.

    `hang` returns why the gateway does not live, or None. `registry` is called for each scrape.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        hang: Callable[[], str | None],
        readiness: Readiness,
        registry: Callable[[], CollectorRegistry],
    ) -> None:
        address, port = settings.gateway_metrics_address, settings.gateway_metrics_port

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_SECONDS

            def do_GET(self) -> None:
                match self.path.partition("?")[0]:
                    case "/live":
                        self._tell(hang())
                    case "/ready":
                        self._tell(hang() or readiness.reason())
                    case "/metrics":
                        self._answer(200, generate_latest(registry()), CONTENT_TYPE_LATEST)
                    case _:
                        self._answer(404, b"not found; see /metrics, /live and /ready\n")

            def _tell(self, reason: str | None) -> None:
                self._answer(503 if reason else 200, f"{reason or 'all is well'}\n".encode())

            def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
                """Log nothing: a line for each scrape would fill the log."""

        class Server(ThreadingHTTPServer):
            address_family = AF_INET6 if ":" in address else ThreadingHTTPServer.address_family
            daemon_threads = True

        try:
            self._server = Server((address, port), Handler)
        except OSError as error:
            raise SettingError(
                f"cannot listen on {address}, port {port}: {error.strerror or error}; change "
                "HEADRACE_GATEWAY_METRICS_ADDRESS and HEADRACE_GATEWAY_METRICS_PORT"
            ) from None
        threading.Thread(target=self._server.serve_forever, name="headrace-health", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
