"""Metrics and health over HTTP: `/metrics`, `/live` and `/ready`, to be read, nothing else."""

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

#: Seconds a client may take to ask.
_PATIENCE = 10.0


class HttpServer:
    """Listens from the moment it is made; answers in threads of its own. Raises SettingError where it cannot.

    `verdict` says how the worker is; without one there is no `/live` and no `/ready`.
    """

    def __init__(
        self,
        address: str,
        port: int,
        registry: CollectorRegistry,
        health_status: Callable[[], HealthStatus] | None = None,
    ) -> None:
        self._metrics, self._verdict = make_wsgi_app(registry), health_status
        kind: type[_Server] = _Server6 if ":" in address else _Server
        try:
            self._server = make_server(address, port, self._answer, kind, _Handler)
        except OSError as error:
            raise SettingError(
                f"cannot listen on {address}, port {port}: {error.strerror or error}; "
                "see HEADRACE_METRICS_ADDRESS and HEADRACE_METRICS_PORT; of the exporter, --address and --port"
            ) from None
        threading.Thread(target=self._server.serve_forever, name="headrace-http", daemon=True).start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def after_fork(self) -> None:
        """In a pool process: the port is the main one's."""
        self._server.socket.close()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _text(start, "405 Method Not Allowed", "only GET")
        path = environ["PATH_INFO"]
        if path == "/metrics":
            found: Iterable[bytes] = self._metrics(environ, start)
            return found
        if path in {"/live", "/ready"} and self._verdict is not None:
            verdict = self._verdict()
            good = verdict.live if path == "/live" else verdict.ready
            return _text(start, "200 OK" if good else "503 Service Unavailable", verdict.reason)
        return _text(start, "404 Not Found", "there is /metrics" + (", /live, /ready" if self._verdict else ""))


def _text(start: Callable[..., Any], status: str, said: str) -> Iterable[bytes]:
    body = f"{said}\n".encode()
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Not the base class's: it asks for the machine's name, which may take long.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """A scrape is no news."""
