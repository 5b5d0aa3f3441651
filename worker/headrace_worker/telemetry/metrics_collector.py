"""The metrics of a worker's `/metrics`: the totals of its pool processes, its models and its memory."""

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
from headrace_worker.telemetry.health import Health
from headrace_worker.telemetry.loops import Loop, LoopStatus
from headrace_worker.telemetry.metrics import Metric, MetricDelta, gauge_family
from headrace_worker.telemetry.metrics_pipe import MetricsPipe

if TYPE_CHECKING:
    from headrace_worker.models.registry import Registry

INFO = Metric("headrace_worker_info", "gauge", "1, with the version of Headrace as a label.", ("headrace",))
READY = Metric("headrace_worker_ready", "gauge", "1 if the worker is ready: its models are loaded and proven.")
LOOP_UP = Metric(
    "headrace_loop_up",
    "gauge",
    "1 while a loop of the process turns in time; at 0 it is not ready.",
    ("loop",),
)
LOOP_AGE = Metric(
    "headrace_loop_age_seconds", "gauge", "Seconds since the last round of a loop of the process ended.", ("loop",)
)
MODEL_STATE = Metric(
    "headrace_model_state",
    "gauge",
    "1 for each version in its state: serving, loaded or refused.",
    ("model", "version", "state"),
)
POOL_PROCESSES = Metric("headrace_pool_processes", "gauge", "Pool processes that run.")
POOL_MEMORY = Metric(
    "headrace_pool_resident_bytes",
    "gauge",
    "Resident memory of all pool processes; memory they share counts once for each.",
)
LARGEST_PROCESS = Metric(
    "headrace_pool_largest_resident_bytes", "gauge", "Resident memory of the largest pool process."
)

#: Every metric of a worker, except those of prometheus-client and of drift.
METRICS = (
    *metrics.POOL_METRICS,
    INFO,
    READY,
    LOOP_UP,
    LOOP_AGE,
    MODEL_STATE,
    POOL_PROCESSES,
    POOL_MEMORY,
    LARGEST_PROCESS,
)


class WorkerCollector(Collector):
    """The collector of a worker's metrics. `pids` returns the ids of its pool processes."""

    def __init__(
        self,
        pipe: MetricsPipe,
        models: Registry,
        health: Health,
        pids: Callable[[], Iterable[int]],
    ) -> None:
        self._pipe, self._models, self._health, self._pids = pipe, models, health, pids

    def describe(self) -> Iterable[Family]:
        """Return nothing: registration must not need models that are not loaded yet."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Yield every metric with its numbers now."""
        states = list(_model_states(self._models))
        yield from metrics.metric_families(self._pipe.totals(_zeros(states)))
        yield gauge_family(INFO, [((__version__,), 1)])
        yield gauge_family(READY, [((), float(self._health.status().ready))])
        yield from loop_families(self._health.loops())
        yield gauge_family(MODEL_STATE, [(state, 1) for state in states])
        memory = [resident_bytes(pid) for pid in self._pids()]
        yield gauge_family(POOL_PROCESSES, [((), len(memory))])
        yield gauge_family(POOL_MEMORY, [((), sum(memory))])
        yield gauge_family(LARGEST_PROCESS, [((), max(memory, default=0))])


def loop_families(loops: Iterable[LoopStatus]) -> Iterator[Family]:
    """Yield the metrics of loops."""
    loops = list(loops)
    yield gauge_family(LOOP_UP, [((loop.name,), float(loop.problem is None)) for loop in loops])
    yield gauge_family(LOOP_AGE, [((loop.name,), loop.age_seconds) for loop in loops])


class LoopCollector(Collector):
    """The collector of the loops of a process that is no worker."""

    def __init__(self, *loops: Loop) -> None:
        self._loops = loops

    def collect(self) -> Iterator[Family]:
        """Yield the metrics of the loops that have begun."""
        yield from loop_families(status for loop in self._loops if (status := loop.status()) is not None)


def make_registry(*collectors: Collector) -> CollectorRegistry:
    """Return a registry of these collectors and prometheus-client's own for this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return registry


def _model_states(models: Registry) -> Iterator[tuple[str, str, str]]:
    for model in models.models():
        route = models.route(model)
        serving = route.versions if route is not None else set()
        for version in models.loaded_versions(model):
            yield model, version, "serving" if version in serving else "loaded"
        for version in models.refused(model):
            yield model, version, "refused"


def _zeros(states: Iterable[tuple[str, str, str]]) -> MetricDelta:
    """Return counters at 0 for the models: Prometheus sees a first increase only after an earlier sample."""
    zeros = MetricDelta(counters={}, histograms={})
    for model, version, state in states:
        zeros.add(metrics.LEASE_LOSSES, (model,), 0)
        zeros.add(metrics.RETRIES, (model,), 0)
        for reason in get_args(Reason):
            zeros.add(metrics.DEAD_LETTERS, (model, reason), 0)
        if state == "serving":
            for outcome in ("success", "failure"):
                zeros.add(metrics.JOBS, (model, version, outcome), 0)
    for cause in ("crash", "timeout"):
        zeros.add(metrics.CLAIMS_LOST, (cause,), 0)
    return zeros


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 if it has ended or the system has no /proc."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()
