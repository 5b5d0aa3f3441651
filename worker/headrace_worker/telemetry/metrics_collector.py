"""What a worker shows on `/metrics`: the sums of its pool processes, its models, its memory."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from headrace.version import __version__
from headrace.wire.outcome import Reason
from headrace_worker.telemetry import metrics
from headrace_worker.telemetry.health import HealthStatus
from headrace_worker.telemetry.metrics import Metric, MetricDelta, gauge_family
from headrace_worker.telemetry.metrics_pipe import MetricsPipe

if TYPE_CHECKING:
    from headrace_worker.models.registry import Registry

INFO = Metric("headrace_worker_info", "gauge", "1, with the version of Headrace.", ("headrace",))
READY = Metric("headrace_worker_ready", "gauge", "Whether the worker is ready: its models are proven.")
MODEL = Metric(
    "headrace_model_state",
    "gauge",
    "1 for each version in the state it is in: serving, loaded or refused.",
    ("model", "version", "state"),
)
PROCESSES = Metric("headrace_pool_processes", "gauge", "Pool processes there are.")
MEMORY = Metric(
    "headrace_pool_resident_bytes",
    "gauge",
    "Resident memory of all pool processes, what they share counted for each.",
)
LARGEST = Metric(
    "headrace_pool_largest_resident_bytes", "gauge", "Resident memory of the pool process that has the most."
)

#: All that a worker shows, but for what prometheus-client says of the main process.
METRICS = (*metrics.POOL_METRICS, INFO, READY, MODEL, PROCESSES, MEMORY, LARGEST)


class WorkerCollector(Collector):
    """A worker's metrics, made when they are asked for. `pids` are those of its pool processes."""

    def __init__(
        self,
        feed: MetricsPipe,
        models: Registry,
        verdict: Callable[[], HealthStatus],
        pids: Callable[[], Iterable[int]],
    ) -> None:
        self._feed, self._models, self._verdict, self._pids = feed, models, verdict, pids

    def describe(self) -> Iterable[Family]:
        """Nothing: to register must not look at models that are not loaded yet."""
        return ()

    def collect(self) -> Iterator[Family]:
        """All of it, now."""
        states = list(_states(self._models))
        yield from metrics.metric_families(self._feed.totals(_seed(states)))
        yield gauge_family(INFO, [((__version__,), 1)])
        yield gauge_family(READY, [((), float(self._verdict().ready))])
        yield gauge_family(MODEL, [(state, 1) for state in states])
        used = [resident_bytes(pid) for pid in self._pids()]
        yield gauge_family(PROCESSES, [((), len(used))])
        yield gauge_family(MEMORY, [((), sum(used))])
        yield gauge_family(LARGEST, [((), max(used, default=0))])


def make_registry(*shown: Collector) -> CollectorRegistry:
    """What is shown, and what prometheus-client says of this process."""
    found = CollectorRegistry()
    ProcessCollector(registry=found)
    GCCollector(registry=found)
    for one in shown:
        found.register(one)
    return found


def _states(models: Registry) -> Iterator[tuple[str, str, str]]:
    for model in models.models():
        route = models.route(model)
        serving = route.versions if route is not None else set()
        for version in models.loaded_versions(model):
            yield model, version, "serving" if version in serving else "loaded"
        for version in models.refused(model):
            yield model, version, "refused"


def _seed(states: Iterable[tuple[str, str, str]]) -> MetricDelta:
    """Zeros: the first failure is only seen as one more where there was a number before it."""
    seed = MetricDelta(counters={}, histograms={})
    for model, version, state in states:
        seed.add(metrics.LEASE_LOSSES, (model,), 0)
        seed.add(metrics.RETRIES, (model,), 0)
        for reason in get_args(Reason):
            seed.add(metrics.DEAD_LETTERS, (model, reason), 0)
        if state == "serving":
            for ended in ("success", "failure"):
                seed.add(metrics.JOBS, (model, version, ended), 0)
    for cause in ("crash", "timeout"):
        seed.add(metrics.CLAIMS_LOST, (cause,), 0)
    return seed


def resident_bytes(pid: int) -> int:
    """Bytes of a process that are in memory; 0 for one that has ended, or where no one tells."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()
