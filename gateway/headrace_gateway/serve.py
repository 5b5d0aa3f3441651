"""Serve: a process, or several that share the port, with health and metrics beside them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY, CollectorRegistry

from headrace.errors import SettingError
from headrace_gateway.callers import check_open
from headrace_gateway.health import HealthServer, Readiness
from headrace_gateway.processes import ProcessGroup
from headrace_gateway.request_log import install_log
from headrace_gateway.server import make_server
from headrace_gateway.settings import GatewaySettings

#: Seconds without a turn of the event loop after which the gateway counts as hung.
_HUNG_SECONDS = 30.0
_ENDING = "the gateway is shutting down"


def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingError if a setting, an address or a port cannot be used."""
    check_open(settings)
    install_log()
    server = make_server(settings)  # a setting is refused before the port is bound, and before processes start
    with bind(settings) as listener:
        if settings.gateway_processes > 1:
            group = ProcessGroup(settings, listener)
            with _health(settings, lambda: None, lambda: _ENDING if group.is_ending else None, group.registry):
                group.run()
            return

        def hang() -> str | None:
            idle = time.monotonic() - server.turned_at
            return f"the event loop has not turned for {idle:.0f} s" if idle > _HUNG_SECONDS else None

        def problem() -> str | None:
            if server.should_exit:
                return _ENDING
            return None if server.started else "the gateway starts"

        with _health(settings, hang, problem, lambda: REGISTRY):
            server.run(sockets=[listener])


def bind(settings: GatewaySettings) -> socket.socket:
    """Return a socket bound to the gateway's address. Raises SettingError."""
    address, port = settings.gateway_address, settings.gateway_port
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise SettingError(
            f"cannot listen on {address}, port {port}: {error.strerror or error}; change "
            "HEADRACE_GATEWAY_ADDRESS and HEADRACE_GATEWAY_PORT"
        ) from None
    listener.set_inheritable(True)
    return listener


@contextmanager
def _health(
    settings: GatewaySettings,
    hang: Callable[[], str | None],
    problem: Callable[[], str | None],
    registry: Callable[[], CollectorRegistry],
) -> Iterator[None]:
    """Serve health and metrics meanwhile, if they have a port."""
    if not settings.gateway_metrics_port:
        yield
        return
    readiness = Readiness(settings, problem)
    server = HealthServer(settings, hang=hang, readiness=readiness, registry=registry)
    try:
        yield
    finally:
        server.close()
        readiness.close()
