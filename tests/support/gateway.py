"""A gateway as a process of its own, and requests to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from headrace_worker.local.stack import Child
from tests.support.connections import free_port
from tests.support.waiting import wait_until


class RunningGateway(NamedTuple):
    """A gateway's address, and its process."""

    url: str
    child: Child

    def client(self, **options: object) -> httpx.Client:
        """Return an HTTP client of the gateway. Close it."""
        return httpx.Client(base_url=self.url, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def running_gateway(
    redis_url: str, folder: Path, *, name: str = "gateway", **settings: str
) -> Iterator[RunningGateway]:
    """Start an open gateway with further settings, wait until it answers, and stop it at the end."""
    port = int(settings.get("HEADRACE_GATEWAY_PORT") or free_port())
    environ = {
        "HEADRACE_REDIS_URL": redis_url,
        "HEADRACE_GATEWAY_OPEN": "true",
        **settings,
        "HEADRACE_GATEWAY_PORT": str(port),
    }
    child = Child(name, ["headrace.cli", "gateway"], environ, folder / f"{name}.log")
    gateway = RunningGateway(f"http://127.0.0.1:{port}", child)

    def answers() -> bool:
        child.check()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{gateway.url}/no-such-page").status_code == 404
        return False

    try:
        wait_until(answers, 30, lambda: child.log.read_text()[-3000:])
        yield gateway
    finally:
        child.stop()
