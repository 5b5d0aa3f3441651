"""A read-only HTTP server for `/metrics`, `/live` and `/ready`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import make_wsgi_app

from headrace.errors import SettingError
from headrace_worker.telemetry.health import HealthStatus
from headrace_worker.telemetry.loops import LATE_SECONDS, LoopHealth

#: Seconds a client may take to send its request.
_REQUEST_SECONDS = 10.0


class HttpServer:
    """The server; it listens from its construction on and answers each request in a thread.

    `health_status` returns the worker's health; without it there is no `/live` and no `/ready`. `loop` is the
    health of the thread that accepts connections; None if nothing depends on it.
    Raises SettingError if the address or the port cannot be used.
    """

    def __init__(
        self,
        address: str,
        port: int,
        registry: CollectorRegistry,
        health_status: Callable[[], HealthStatus] | None = None,
        loop: LoopHealth | None = None,
    ) -> None:
        self._metrics, self._health_status = make_wsgi_app(registry), health_status
        server_class: type[_Server] = _Server6 if ":" in address else _Server
        try:
            self._server = make_server(address, port, self._answer, server_class, _Handler)
        except OSError as error:
            raise SettingError(
                f"cannot listen on {address}, port {port}: {error.strerror or error}; change "
                "HEADRACE_METRICS_ADDRESS and HEADRACE_METRICS_PORT, or for the exporter --address and --port"
            ) from None
        self._loop = loop or LoopHealth("http", late_after=LATE_SECONDS)
        self._server.service_actions = self._loop.end_round  # type: ignore[method-assign]  # called in each round
        self._closed = threading.Event()
        threading.Thread(
            target=self._loop.run_rounds,
            args=(self._server.serve_forever, self._closed, 0),
            name="headrace-http",
            daemon=True,
        ).start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def after_fork(self) -> None:
        """Close the socket in a pool process; the main process keeps listening."""
        self._server.socket.close()

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _text(start, "405 Method Not Allowed", "only GET and HEAD are allowed")
        path = environ["PATH_INFO"]
        if path == "/metrics":
            body: Iterable[bytes] = self._metrics(environ, start)
            return body
        if path in {"/live", "/ready"} and self._health_status is not None:
            health = self._health_status()
            passed = health.live if path == "/live" else health.ready
            return _text(start, "200 OK" if passed else "503 Service Unavailable", health.reason)
        paths = "/metrics, /live and /ready" if self._health_status else "/metrics"
        return _text(start, "404 Not Found", f"not found; see {paths}")


def _text(start: Callable[..., Any], status: str, text: str) -> Iterable[bytes]:
    body = f"{text}\n".encode()
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Replaces the base class's method, which looks up the machine's name; that may take long.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Log nothing: a line for each scrape would fill the log."""
