"""The drift of the versions a worker serves, as a metric. Every worker shows the same: it is read from Redis."""

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
    "Population stability index of a day's jobs against the version's profile; all workers show the same.",
    ("model", "version", "column_kind", "name"),
)

#: Seconds for which what was read is shown again.
_GOOD_FOR = 30.0


class DriftCollector(Collector):
    """Reads when it is asked, and not again for a while. Shows what it read last while Redis is away."""

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
        self._read_at = -_GOOD_FOR
        self._rows: list[tuple[tuple[str, ...], float]] = []

    def describe(self) -> Iterable[Family]:
        """Nothing: to register must not wait for Redis."""
        return ()

    def collect(self) -> Iterator[Family]:
        """The index of each column that enough rows were counted of."""
        with self._lock:
            if self._clock() - self._read_at >= _GOOD_FOR:
                self._read_at = self._clock()
                try:
                    self._rows = list(self._read())
                except redis.RedisError as error:
                    log.warning("could not read what was counted for drift: %s", type(error).__name__)
            yield gauge_family(PSI, self._rows)

    def _read(self) -> Iterator[tuple[tuple[str, ...], float]]:
        manifests = [one for one in self._serving() if one.profile is not None]
        if not manifests:
            return
        if self._client is None:
            self._client = self._connect()
        seconds, _ = self._client.time()
        now = datetime.fromtimestamp(int(seconds), UTC)
        for manifest in manifests:
            for one in measure_drift(self._client, self._keys, manifest, now) or ():
                if one.psi is not None:
                    yield (manifest.name, manifest.version, one.column_kind, one.name), one.psi

    def _serving(self) -> Iterator[Manifest]:
        for model in self._models.models():
            route = self._models.route(model)
            for version in self._models.loaded_versions(model):
                if route is not None and version in route.versions:
                    yield self._models.get(model, version).manifest
