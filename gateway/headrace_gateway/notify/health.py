"""Health and metrics of one notifier: `/live`, `/ready` and `/metrics`, for an orchestrator and Prometheus.

A notifier that waits for Redis lives, as a restart would not bring Redis back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class NotifierHealth:
    """The health of this process. `max_round` is the most seconds between two looks for notices."""

    def __init__(self, max_round: float) -> None:
        self._max_round = max_round
        self._looked_at = time.monotonic()
        self._problem: str | None = "the notifier starts: it has not looked for notices yet"

    def note_look(self) -> None:
        """Note that the notifier begins to look for notices, or waits for a request to end."""
        self._looked_at = time.monotonic()

    def note_problem(self, problem: str | None) -> None:
        """Note why the notifier delivers nothing, as a sentence; None if it does."""
        self._problem = problem

    def hang(self) -> str | None:
        """Return why the notifier does not live, None if it does."""
        silent = time.monotonic() - self._looked_at
        return f"the notifier has not looked for notices for {silent:.0f} s" if silent > self._max_round else None

    def reason(self) -> str | None:
        """Return why the notifier is not ready, None if it is."""
        return self.hang() or self._problem


async def serve_health(
    health: NotifierHealth, registry: CollectorRegistry, address: str, port: int
) -> web.AppRunner:
    """Serve `/live`, `/ready` and `/metrics`. Clean up the runner that it returns."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", show),
            web.get("/live", lambda _: _tell(health.hang)),
            web.get("/ready", lambda _: _tell(health.reason)),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner


async def _tell(problem: Callable[[], str | None]) -> web.Response:
    reason = problem()
    return web.Response(status=503 if reason else 200, text=f"{reason or 'all is well'}\n")
