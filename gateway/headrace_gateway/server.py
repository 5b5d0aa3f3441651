"""One process of a gateway: uvicorn with the app, and its end.

SIGTERM ─> waits answer 202, new requests 503 with Connection: close ─> a moment later the socket is closed
        ─> requests under way go on for HEADRACE_GATEWAY_DRAIN seconds ─> exit
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import time
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from headrace_gateway.app import create_app
from headrace_gateway.callers import Callers
from headrace_gateway.request_log import install_log
from headrace_gateway.settings import GatewaySettings

log = logging.getLogger("headrace.gateway")

#: Seconds for which an idle connection stays open: longer than a proxy keeps it (Caddy: 120), so that the proxy
#: closes it, and never sends a request into a connection that the gateway is closing.
_IDLE_SECONDS = 130
#: Objects that are made and not freed before the garbage collector looks.
_COLLECT_AFTER = 20_000
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GatewayServer(uvicorn.Server):
    """A server that ends in steps, so that no request is lost."""

    def __init__(self, config: uvicorn.Config, app: Starlette, linger: float) -> None:
        super().__init__(config)
        self._app, self._linger = app, linger
        #: Monotonic seconds of the last turn of the event loop.
        self.turned_at = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Record that the event loop turns. Return True to end."""
        self.turned_at = time.monotonic()
        return await super().on_tick(counter)

    async def main_loop(self) -> None:
        """Serve until a signal, then refuse new requests with an answer for a moment."""
        log.info("the gateway serves")
        _tune_collector()
        await super().main_loop()
        log.info("the gateway was told to end; waits are answered with their jobs, new requests refused")
        self._app.state.gateway.end()
        until = time.monotonic() + self._linger
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            self.turned_at = time.monotonic()
            await asyncio.sleep(0.02)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals; uvicorn's own method would end the process by the signal after all is done."""
        former = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


def _tune_collector() -> None:
    """Let the garbage collector pass over what was loaded at the start, and look less often.

    Nearly all objects of a request are freed without it, so its rounds are mostly wasted.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])


def make_server(settings: GatewaySettings, callers: Callers | None = None) -> GatewayServer:
    """Return the server of a process."""
    app = create_app(settings, callers)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,  # no header is trusted for identity
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=round(settings.gateway_drain),
    )
    return GatewayServer(config, app, settings.gateway_linger)


def serve_process(settings: GatewaySettings, listener: socket.socket) -> None:
    """Serve one of several processes until SIGTERM or SIGINT."""
    install_log()
    make_server(settings).run(sockets=[listener])
