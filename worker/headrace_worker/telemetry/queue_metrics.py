"""The exporter's metrics of one Redis: queues, leases, dead letters, models and bulk runs.

Each scrape reads Redis in a few round trips and nothing is kept: the names of the models, then everything about
them, then which leases are empty, and the bulk runs. If any of it fails, no number is shown: an autoscaler must
not take an outage for an empty queue.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import redis
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from headrace.catalog.pauses import decode_pauses, pauses_command
from headrace.catalog.published import decode_model_names, read_model_names
from headrace.catalog.workers import decode_loaded, decode_refused, read_loaded, read_refused
from headrace.connection.commands import Command, Pipeline, execute, run
from headrace.connection.errors import is_wrong_type
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.inspection import queues
from headrace.inspection.notices import count_commands
from headrace.inspection.oldest import decode_reports, read_reports
from headrace.inspection.queues import QueueDepth
from headrace.text import did_you_mean
from headrace.wire.keys import Keys
from headrace.wire.queues import model_name
from headrace.wire.stored import report_damaged
from headrace_worker.telemetry import run_metrics
from headrace_worker.telemetry.metrics import Metric, gauge_family
from headrace_worker.telemetry.run_metrics import ReadRuns
from headrace_worker.telemetry.worker_classes import WorkerClass, sum_backlogs
from headrace_worker.transport.claims import parse_lease

log = logging.getLogger("headrace.exporter")

UP = Metric("headrace_redis_up", "gauge", "1 if Redis answered this scrape.")
READ_SECONDS = Metric("headrace_exporter_read_seconds", "gauge", "Seconds Redis took to answer this scrape.")
BACKLOG = Metric(
    "headrace_backlog", "gauge", "Jobs that want a worker: waiting, isolated, due and leased ones.", ("model",)
)
CLASS_BACKLOG = Metric(
    "headrace_class_backlog",
    "gauge",
    "Jobs that want a worker of a class: the sum over its models, the jobs of their bulk runs included.",
    ("class",),
)
WAITING = Metric("headrace_queue_waiting", "gauge", "Jobs that wait for a worker.", ("model", "priority"))
ISOLATED = Metric(
    "headrace_queue_isolated",
    "gauge",
    "Jobs whose process or worker was lost; they run before all others, each alone.",
    ("model",),
)
DELAYED = Metric("headrace_queue_delayed", "gauge", "Jobs that are not due yet.", ("model",))
DUE = Metric("headrace_queue_due", "gauge", "Delayed jobs whose time has come.", ("model",))
LEASED = Metric("headrace_queue_leased", "gauge", "Jobs that a worker has claimed.", ("model",))
PAUSED = Metric("headrace_queue_paused", "gauge", "1 if the model is paused: no job of it is claimed.", ("model",))
OLDEST_SECONDS = Metric(
    "headrace_queue_oldest_seconds",
    "gauge",
    "Age of the oldest waiting job whose id contains its submission time; 0 if none waits.",
    ("model",),
)
BULK_BACKLOG = Metric(
    "headrace_bulk_backlog",
    "gauge",
    "Chunks and other jobs of bulk runs that want a worker: waiting, isolated, due and leased ones.",
    ("model",),
)
BULK_WAITING = Metric(
    "headrace_bulk_queue_waiting",
    "gauge",
    "Jobs of bulk runs that wait for a worker, isolated ones too.",
    ("model",),
)
BULK_DELAYED = Metric(
    "headrace_bulk_queue_delayed", "gauge", "Jobs of bulk runs that are not due yet.", ("model",)
)
BULK_LEASED = Metric(
    "headrace_bulk_queue_leased", "gauge", "Jobs of bulk runs that a worker has claimed.", ("model",)
)
LEASES = Metric("headrace_leases", "gauge", "Claims under lease.", ("model",))
EXPIRED = Metric(
    "headrace_leases_expired", "gauge", "Leases that have expired and whose jobs are not requeued yet."
)
DEAD_LETTERS = Metric("headrace_dead_letters", "gauge", "Dead letters stored.")
DROPPED = Metric(
    "headrace_dead_letters_dropped_total",
    "counter",
    "Dead letters dropped because there were too many or they were too old.",
)
NOTICES = Metric(
    "headrace_notices",
    "gauge",
    "Notices that are not delivered (waiting), those due for a minute (late), and jobs that will have one (open).",
    ("state",),
)
LISTENER_JOBS = Metric(
    "headrace_listener_jobs",
    "gauge",
    "Ended jobs that listeners have not handled (waiting), and jobs under way that have listeners (open).",
    ("state",),
)
WORKERS = Metric("headrace_model_workers", "gauge", "Workers that have a version in memory.", ("model", "version"))
REFUSED = Metric(
    "headrace_model_refused", "gauge", "1 for each version that workers refuse to serve.", ("model", "version")
)

#: Every metric of the exporter.
METRICS = (
    UP,
    READ_SECONDS,
    BACKLOG,
    CLASS_BACKLOG,
    WAITING,
    ISOLATED,
    DELAYED,
    DUE,
    LEASED,
    PAUSED,
    OLDEST_SECONDS,
    BULK_BACKLOG,
    BULK_WAITING,
    BULK_DELAYED,
    BULK_LEASED,
    LEASES,
    EXPIRED,
    DEAD_LETTERS,
    DROPPED,
    NOTICES,
    LISTENER_JOBS,
    WORKERS,
    REFUSED,
    *run_metrics.METRICS,
)


class QueueCollector(Collector):
    """The collector of one Redis's metrics. `connect` returns the connection, at the first scrape.

    Besides the models with a contract in Redis, it shows those that `list_models` returns and those of `classes`.
    `list_runs` reads the bulk runs; None: they are not shown.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        prefix: str = "",
        *,
        list_models: Callable[[], Collection[str]] = tuple,
        classes: Sequence[WorkerClass] = (),
        list_runs: ReadRuns | None = None,
    ) -> None:
        self._connect, self._keys = connect, Keys(prefix)
        self._list_models, self._list_runs, self._classes = list_models, list_runs, classes
        self._client: redis.Redis | None = None
        self._failed = False
        #: The models of classes that were logged because nobody knows them.
        self._unknown: set[str] = set()

    def describe(self) -> Sequence[Family]:
        """Return nothing: registration must not wait for Redis."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Yield every metric with its numbers now; if Redis does not answer, only that it is not up."""
        started = time.monotonic()
        families: list[Family] = []
        try:
            if self._client is None:
                self._client = self._connect()
            families = list(self._read(self._client))
            self._failed = False
        except redis.RedisError as error:
            if not self._failed:  # once, not at each scrape
                reason = f"{type(error).__name__}: {error}" if isinstance(error, redis.ResponseError) else ""
                log.warning(
                    "Redis does not answer (%s); the exporter shows headrace_redis_up 0 until it does",
                    reason or type(error).__name__,
                )
            self._failed = True
        yield gauge_family(UP, [((), float(not self._failed))])
        yield gauge_family(READ_SECONDS, [((), time.monotonic() - started)])
        yield from families

    def _read(self, client: redis.Redis) -> Iterator[Family]:
        keys, ask = self._keys, partial(execute, client)
        opening = (READ_SERVER_TIME, Command(("ZCARD", keys.dead_times)), Command(("GET", keys.dead_dropped)))
        replies = ask(Pipeline((*opening, read_reports(keys), pauses_command(keys), read_model_names(keys))))
        time_reply, dead_letters, dropped, reports, pauses, published = replies
        _raise_errors((time_reply, published))
        dead_letters, dropped, reports = (
            _none_if_damaged(*pair)
            for pair in (
                (dead_letters, "the times of the dead letters"),
                (dropped, "the count of dropped dead letters"),
                (reports, "the reports on the oldest jobs"),
            )
        )
        # Only names of models become labels: those of contracts, the store and the command line.
        models = self._merge_models(decode_model_names(published))
        names = queues.queues_of(models)
        measures = queues.measure_commands(keys, names)
        by_model = [read(keys, model) for model in models for read in (read_loaded, read_refused)]
        replies = ask(Pipeline((*measures, *by_model)))
        measured, statuses = replies[: len(measures)], replies[len(measures) :]
        _raise_errors(measured)
        _raise_errors(reply for reply in statuses if not is_wrong_type(reply))  # hides nothing else
        readings = queues.decode_readings(names, measured)
        empty_leases = run(ask, queues.find_empty_leases(keys, readings))
        depths = queues.decode_depths(readings, empty_leases, decode_pauses(pauses))
        now_ms = decode_server_time(time_reply)
        yield from _depths(depths[::2])
        yield from _bulk_depths(depths[1::2])
        yield gauge_family(CLASS_BACKLOG, [((name,), jobs) for name, jobs in sum_backlogs(self._classes, depths)])
        waiting = {depth.model: depth.waiting for depth in depths if not depth.is_bulk}
        waits = decode_reports(reports or {}, waiting, now_ms / 1000)
        yield gauge_family(OLDEST_SECONDS, [((model,), waits.get(model, 0.0)) for model in models])
        leases = {entry for reading in readings for entry in reading.leases if entry[0] not in empty_leases}
        yield from _leases(models, leases, now_ms)
        if dead_letters is not None:
            yield gauge_family(DEAD_LETTERS, [((), int(dead_letters))])
        family = CounterMetricFamily(DROPPED.name, DROPPED.help)
        family.add_metric((), int(dropped or 0))
        yield family
        yield from _counts(NOTICES, ("open", "waiting", "late"), ask(Pipeline(count_commands(keys, now_ms))))
        listener_jobs = ask(Pipeline((("ZCARD", keys.listen_open), ("ZCARD", keys.listen_due))))
        yield from _counts(LISTENER_JOBS, ("open", "waiting"), listener_jobs)
        yield from _versions(models, statuses[::2], statuses[1::2], now_ms)
        if self._list_runs is not None:
            runs = self._list_runs(keys, limit=run_metrics.RUNS_READ)
            yield from run_metrics.read_families(ask, runs, now_ms)

    def _merge_models(self, published: Collection[str]) -> list[str]:
        """Return all models to show, sorted. A model of a class that nobody knows is logged once."""
        existing = {*published, *self._list_models()}
        named = {model for worker_class in self._classes for model in worker_class.models}
        for model in sorted(named - existing - self._unknown):
            hint = did_you_mean(model, existing)
            log.warning(
                "a class names %s, which neither Redis nor the store has; it counts its queue%s", model, hint
            )
        self._unknown |= named - existing
        return sorted(existing | named)


def _none_if_damaged(reply: Any, name: str) -> Any:
    """Return a reply, None for that of a key of another type, which is logged. Raises any other error."""
    if is_wrong_type(reply):
        report_damaged(name, reply)
        return None
    _raise_errors((reply,))
    return reply


def _raise_errors(replies: Iterable[Any]) -> None:
    for reply in replies:
        if isinstance(reply, redis.RedisError):
            raise reply


def _depths(depths: Sequence[QueueDepth]) -> Iterator[Family]:
    yield gauge_family(BACKLOG, [((depth.model,), depth.backlog) for depth in depths])
    yield gauge_family(
        WAITING, [((depth.model, str(step)), jobs) for depth in depths for step, jobs in depth.by_priority.items()]
    )
    yield gauge_family(ISOLATED, [((depth.model,), depth.isolated) for depth in depths])
    yield gauge_family(DELAYED, [((depth.model,), depth.delayed) for depth in depths])
    yield gauge_family(DUE, [((depth.model,), depth.due) for depth in depths])
    yield gauge_family(LEASED, [((depth.model,), depth.leased) for depth in depths])
    yield gauge_family(PAUSED, [((depth.model,), depth.paused is not None) for depth in depths])


def _bulk_depths(depths: Sequence[QueueDepth]) -> Iterator[Family]:
    yield gauge_family(BULK_BACKLOG, [((depth.model,), depth.backlog) for depth in depths])
    yield gauge_family(BULK_WAITING, [((depth.model,), depth.waiting) for depth in depths])
    yield gauge_family(BULK_DELAYED, [((depth.model,), depth.delayed) for depth in depths])
    yield gauge_family(BULK_LEASED, [((depth.model,), depth.leased) for depth in depths])


def _leases(models: Sequence[str], leases: Iterable[queues.LeaseEntry], now_ms: int) -> Iterator[Family]:
    by_model: Counter[str | None] = Counter()
    expired = 0
    for member, expires_ms in leases:
        if (lease := parse_lease(member)) is not None:
            by_model[model_name(lease.queue)] += 1
            expired += expires_ms < now_ms
    yield gauge_family(LEASES, [((model,), by_model[model]) for model in models])
    yield gauge_family(EXPIRED, [((), expired)])


def _counts(metric: Metric, states: Sequence[str], replies: Sequence[Any]) -> Iterator[Family]:
    """Yield a metric by state, nothing where this user may not count. `replies` are in the order of the states."""
    if not any(isinstance(reply, redis.ResponseError) for reply in replies):
        yield gauge_family(metric, zip([(state,) for state in states], replies, strict=True))


def _versions(
    models: Sequence[str], loaded: Sequence[Any], refused: Sequence[Any], now_ms: int
) -> Iterator[Family]:
    """Yield the metrics of versions. `loaded` and `refused` are replies of Redis, in the order of the models."""
    counts: Counter[tuple[str, str]] = Counter()
    refusals: list[tuple[str, str]] = []
    for model, loaded_reply, refused_reply in zip(models, loaded, refused, strict=True):
        for status in decode_loaded(model, loaded_reply, now_ms).values():
            counts.update((model, version) for version in status.versions)
        refusals += [(model, version) for version in decode_refused(model, refused_reply, now_ms)]
    yield gauge_family(WORKERS, counts.items())
    yield gauge_family(REFUSED, [(labels, 1) for labels in refusals])
