"""The HTTP server for metrics and health: read only, no other path, and a slow client blocks no other."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from headrace.errors import SettingError
from headrace_worker.telemetry.health import Health
from headrace_worker.telemetry.http_server import HttpServer


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def server(health: Health) -> Iterator[HttpServer]:
    registry = CollectorRegistry()
    Gauge("example", "An example.", registry=registry).set(1)
    server = HttpServer("127.0.0.1", 0, registry, health.status)
    yield server
    server.close()


def request(server: HttpServer, path: str, method: str = "GET") -> tuple[int, str]:
    """Send a request, and return the status and the body of the reply."""
    message = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(message, timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_serves_metrics_and_health(server: HttpServer, health: Health) -> None:
    assert "example 1.0" in request(server, "/metrics")[1]
    assert request(server, "/live")[0] == 200
    assert request(server, "/ready") == (503, "the worker starts: its models are being loaded\n")
    health.mark_ready()
    assert request(server, "/ready") == (200, "all is well\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/live?x=1/../.."])
def test_any_other_path_is_not_found(server: HttpServer, path: str) -> None:
    assert request(server, path)[0] == (200 if path.startswith("/live?") else 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_only_reading_is_allowed(server: HttpServer, method: str) -> None:
    assert request(server, "/metrics", method)[0] == 405


def test_a_client_that_sends_nothing_blocks_no_other(server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert request(server, "/live")[0] == 200


def test_a_port_in_use_is_an_error_that_names_the_setting(server: HttpServer) -> None:
    with pytest.raises(SettingError, match="HEADRACE_METRICS_PORT"):
        HttpServer("127.0.0.1", server.port, CollectorRegistry())


def test_a_server_without_a_worker_has_no_health() -> None:
    server = HttpServer("127.0.0.1", 0, CollectorRegistry())
    status, body = request(server, "/live")
    assert (status, body) == (404, "not found; see /metrics\n")
    server.close()
