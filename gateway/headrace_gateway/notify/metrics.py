"""The metrics of one notifier, as docs/reference/metrics.md lists them. Endpoints have the names of their file."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from headrace_gateway.metrics import Metric
from headrace_gateway.notify.schedule import Answer

#: Upper bounds in seconds of a request: from a quick answer to more than the default timeout of 15.
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)

ATTEMPTS = Metric(
    "headrace_notify_attempts_total",
    "counter",
    "Requests to endpoints, by result: `http-200`, `timeout`.",
    ("endpoint", "result"),
)
SECONDS = Metric(
    "headrace_notify_seconds", "histogram", "Seconds of a request, until its answer or its end.", ("endpoint",)
)
DEAD_LETTERS = Metric(
    "headrace_notify_dead_letters_total",
    "counter",
    "Notices that became dead letters; those without a known endpoint have an empty name.",
    ("endpoint",),
)
METRICS = (ATTEMPTS, SECONDS, DEAD_LETTERS)


class NotifyMetrics:
    """The metrics of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._attempts = Counter(ATTEMPTS.name, ATTEMPTS.help, ATTEMPTS.labels, registry=self.registry)
        self._seconds = Histogram(
            SECONDS.name, SECONDS.help, SECONDS.labels, buckets=_BUCKETS, registry=self.registry
        )
        self._dead = Counter(DEAD_LETTERS.name, DEAD_LETTERS.help, DEAD_LETTERS.labels, registry=self.registry)

    def show_endpoints(self, endpoints: Iterable[str]) -> None:
        """Show 0 dead letters of these endpoints and of unknown ones.

        Prometheus sees no increase in a counter that appears with its first count.
        """
        for name in ("", *endpoints):
            self._dead.labels(name)

    def observe(self, endpoint: str, answer: Answer, seconds: float) -> None:
        """Count a request and its answer."""
        self._attempts.labels(endpoint, answer.cause).inc()
        self._seconds.labels(endpoint).observe(seconds)
        self._dead.labels(endpoint)  # its 0, of an endpoint that the file had not at the start

    def count_dead(self, endpoint: str) -> None:
        """Count a dead letter."""
        self._dead.labels(endpoint).inc()
