"""The metrics of a gateway process, as docs/reference/metrics.md lists them.

Labels are templates of routes, methods and statuses, never a text of a request. With several processes,
prometheus-client adds them up through files in a folder, which `processes` makes.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

#: Upper bounds in seconds of a request: from a refusal to the longest wait.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

#: The route of requests to paths that no route has.
NO_ROUTE = "none"


class Metric(msgspec.Struct, frozen=True):
    """The declaration of one metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


REQUESTS = Metric(
    "headrace_gateway_requests_total",
    "counter",
    "Requests answered; status 499 is a caller who hung up.",
    ("method", "route", "status"),
)
SECONDS = Metric(
    "headrace_gateway_request_seconds",
    "histogram",
    "Seconds from the head of a request to the end of its answer, waits included.",
    ("route",),
)
WAITING = Metric("headrace_gateway_waiting", "gauge", "Requests that wait for an outcome.")
METRICS = (REQUESTS, SECONDS, WAITING)


class RequestMetrics:
    """The metrics of requests."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._requests = Counter(REQUESTS.name, REQUESTS.help, REQUESTS.labels, registry=registry)
        self._seconds = Histogram(SECONDS.name, SECONDS.help, SECONDS.labels, buckets=_BUCKETS, registry=registry)
        self._waiting = Gauge(WAITING.name, WAITING.help, registry=registry, multiprocess_mode="livesum")
        #: The children by their labels: prometheus-client looks them up under a lock.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def record(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        key = (method, route, status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._requests.labels(method, route, str(status))
        histogram = self._histograms.get(route)
        if histogram is None:
            histogram = self._histograms[route] = self._seconds.labels(route)
        counter.inc()
        histogram.observe(seconds)

    def show_waiting(self, count: int) -> None:
        """Show the number of requests that wait for an outcome."""
        self._waiting.set(count)
