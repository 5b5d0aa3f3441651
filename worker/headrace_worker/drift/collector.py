"""The drift of the versions a worker serves, as a metric read from Redis: every worker shows the same."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import redis
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from headrace.connection.server_time import decode_server_time
from headrace.wire.keys import Keys
from headrace_worker.drift.psi import measure_drift
from headrace_worker.telemetry.metrics import Metric, gauge_family

if TYPE_CHECKING:
    from headrace_worker.manifest import Manifest
    from headrace_worker.models.registry import Registry

log = logging.getLogger("headrace.models")

PSI = Metric(
    "headrace_drift_psi",
    "gauge",
    "Population stability index of the last 24 hours against the version's profile; the same from every worker.",
    ("model", "version", "column_kind", "name"),
)

#: Seconds for which the last numbers are shown before Redis is read again.
_CACHE_SECONDS = 30.0


class DriftCollector(Collector):
    """The collector of the drift metric. It shows the last numbers while Redis is unreachable."""

    def __init__(
        self,
        models: Registry,
        connect: Callable[[], redis.Redis],
        keys: Keys,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models, self._connect, self._keys, self._clock = models, connect, keys, clock
        self._client: redis.Redis | None = None
        self._lock = threading.Lock()
        self._read_at = -_CACHE_SECONDS
        self._series: list[tuple[tuple[str, ...], float]] = []

    def describe(self) -> Iterable[Family]:
        """Return nothing: registration must not wait for Redis."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Yield the index of each column for which enough rows were counted."""
        with self._lock:
            if self._clock() - self._read_at >= _CACHE_SECONDS:
                self._read_at = self._clock()
                try:
                    self._series = list(self._read())
                except redis.RedisError as error:
                    log.warning(
                        "cannot read drift counts from Redis (%s); /metrics shows the last ones",
                        type(error).__name__,
                    )
            yield gauge_family(PSI, self._series)

    def _read(self) -> Iterator[tuple[tuple[str, ...], float]]:
        manifests = [manifest for manifest in self._serving_manifests() if manifest.profile is not None]
        if not manifests:
            return
        if self._client is None:
            self._client = self._connect()
        now = datetime.fromtimestamp(decode_server_time(self._client.time()) / 1000, UTC)
        for manifest in manifests:
            for column in measure_drift(self._client, self._keys, manifest, now) or ():
                if column.psi is not None:
                    yield (manifest.name, manifest.version, column.column_kind, column.name), column.psi

    def _serving_manifests(self) -> Iterator[Manifest]:
        for model in self._models.models():
            route = self._models.route(model)
            for version in self._models.loaded_versions(model):
                if route is not None and version in route.versions:
                    yield self._models.get(model, version).manifest
