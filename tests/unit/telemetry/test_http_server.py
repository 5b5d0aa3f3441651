"""Metrics and health over HTTP: read only, nothing else there, and one slow client stops no other."""

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
    Gauge("one", "One.", registry=registry).set(1)
    server = HttpServer("127.0.0.1", 0, registry, health.status)
    yield server
    server.close()


def ask(server: HttpServer, path: str, method: str = "GET") -> tuple[int, str]:
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(asked, timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_tells_metrics_and_health(server: HttpServer, health: Health) -> None:
    assert "one 1.0" in ask(server, "/metrics")[1]
    assert ask(server, "/live")[0] == 200
    assert ask(server, "/ready") == (503, "the worker starts: its models are being loaded\n")
    health.mark_ready()
    assert ask(server, "/ready") == (200, "all is well\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/live?x=1/../.."])
def test_there_is_nothing_else(server: HttpServer, path: str) -> None:
    assert ask(server, path)[0] == (200 if path.startswith("/live?") else 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_is_for_reading(server: HttpServer, method: str) -> None:
    assert ask(server, "/metrics", method)[0] == 405


def test_a_client_that_says_nothing_stops_no_other(server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert ask(server, "/live")[0] == 200


def test_a_port_that_is_taken_is_said_by_its_setting(server: HttpServer) -> None:
    with pytest.raises(SettingError, match="HEADRACE_METRICS_PORT"):
        HttpServer("127.0.0.1", server.port, CollectorRegistry())


def test_without_a_worker_there_is_no_health() -> None:
    server = HttpServer("127.0.0.1", 0, CollectorRegistry())
    assert ask(server, "/live")[0] == 404
    server.close()
