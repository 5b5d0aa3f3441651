"""Metrics and health of one notifier, for Prometheus and for an orchestrator."""

from __future__ import annotations

import time

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

from headrace_gateway.notify.schedule import Answer

#: Seconds without a look at Redis after which a notifier counts as hung.
_SILENCE = 60.0


class NotifyMetrics:
    """The metrics of this process. Labels are names of the operator's file."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._attempts = Counter(
            "headrace_notify_attempts",
            "Requests to endpoints, by result: `http-200`, `timeout`.",
            ("endpoint", "result"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "headrace_notify_seconds", "Seconds of a request.", ("endpoint",), registry=self.registry
        )
        self._dead = Counter(
            "headrace_notify_dead_letters",
            "Notices that became dead letters; those of an unknown endpoint have an empty name.",
            ("endpoint",),
            registry=self.registry,
        )
        self._looked_at = time.monotonic()

    def observe(self, endpoint: str, answer: Answer, seconds: float) -> None:
        """Count a request and its answer."""
        self._attempts.labels(endpoint, answer.cause).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def count_dead(self, endpoint: str) -> None:
        """Count a dead letter."""
        self._dead.labels(endpoint).inc()

    def beat(self) -> None:
        """Note that the notifier has looked for notices."""
        self._looked_at = time.monotonic()

    @property
    def is_alive(self) -> bool:
        """False if the notifier has not looked for notices for a minute."""
        return time.monotonic() - self._looked_at < _SILENCE


async def serve_metrics(metrics: NotifyMetrics, address: str, port: int) -> web.AppRunner:
    """Serve `/metrics` and `/live`. Clean up the runner that it returns."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def live(_: web.Request) -> web.Response:
        return web.Response(status=200 if metrics.is_alive else 503, text="")

    app = web.Application()
    app.add_routes([web.get("/metrics", show), web.get("/live", live)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner
