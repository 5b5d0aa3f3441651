"""The exporter's metrics of one Redis: queues, leases, dead letters and models.

Each scrape reads Redis in a few round trips and nothing is kept: the names of the models, then everything about
them, then the leases.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import redis
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from headrace.catalog.pauses import read_pauses
from headrace.catalog.published import fetch_model_names
from headrace.catalog.workers import decode_loaded, decode_refused, read_loaded, read_refused
from headrace.connection.commands import Command, Pipeline, execute, run
from headrace.connection.errors import is_wrong_type
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.inspection import queues
from headrace.inspection.oldest import decode_reports, read_reports
from headrace.inspection.queues import QueueDepth
from headrace.wire.keys import Keys, queue_name
from headrace_worker.telemetry.metrics import Metric, gauge_family
from headrace_worker.transport.claims import parse_lease

log = logging.getLogger("headrace.exporter")

UP = Metric("headrace_redis_up", "gauge", "1 if Redis answered this scrape.")
READ_SECONDS = Metric("headrace_exporter_read_seconds", "gauge", "Seconds Redis took to answer this scrape.")
WAITING = Metric("headrace_queue_waiting", "gauge", "Jobs that wait for a worker.", ("model", "priority"))
ISOLATED = Metric(
    "headrace_queue_isolated",
    "gauge",
    "Jobs whose process or worker was lost; they run before all others, each alone.",
    ("model",),
)
DELAYED = Metric("headrace_queue_delayed", "gauge", "Jobs that are not due yet.", ("model",))
LEASED = Metric("headrace_queue_leased", "gauge", "Jobs that a worker has claimed.", ("model",))
PAUSED = Metric("headrace_queue_paused", "gauge", "1 if the model is paused: no job of it is claimed.", ("model",))
OLDEST_SECONDS = Metric(
    "headrace_queue_oldest_seconds",
    "gauge",
    "Age of the oldest waiting job whose id contains its submission time; 0 if none waits.",
    ("model",),
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
WORKERS = Metric("headrace_model_workers", "gauge", "Workers that have a version in memory.", ("model", "version"))
REFUSED = Metric(
    "headrace_model_refused", "gauge", "1 for each version that workers refuse to serve.", ("model", "version")
)

#: Every metric of the exporter.
METRICS = (
    UP,
    READ_SECONDS,
    WAITING,
    ISOLATED,
    DELAYED,
    LEASED,
    PAUSED,
    OLDEST_SECONDS,
    LEASES,
    EXPIRED,
    DEAD_LETTERS,
    DROPPED,
    WORKERS,
    REFUSED,
)


class QueueCollector(Collector):
    """The collector of one Redis's metrics. `connect` returns the connection, at the first scrape."""

    def __init__(self, connect: Callable[[], redis.Redis], prefix: str = "") -> None:
        self._connect, self._keys = connect, Keys(prefix)
        self._client: redis.Redis | None = None
        self._failed = False

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
            families = list(_read(self._client, self._keys))
            self._failed = False
        except redis.RedisError as error:
            if not self._failed:  # once, not at each scrape
                log.warning(
                    "Redis does not answer (%s); the exporter shows headrace_redis_up 0 until it does",
                    type(error).__name__,
                )
            self._failed = True
        yield gauge_family(UP, [((), float(not self._failed))])
        yield gauge_family(READ_SECONDS, [((), time.monotonic() - started)])
        yield from families


def _read(client: redis.Redis, keys: Keys) -> Iterator[Family]:
    models = fetch_model_names(client, keys)  # only the name of a model may become a label
    commands: list[tuple[Any, ...] | Command] = [
        READ_SERVER_TIME.args,
        ("ZCARD", keys.dead_times),
        ("GET", keys.dead_dropped),
    ]
    for model in models:
        commands += [read_loaded(keys, model).args, read_refused(keys, model).args]
    if models:
        commands += [
            queues.measure_command(keys, models),
            read_reports(keys).args,
        ]
    replies = execute(client, Pipeline(tuple(commands)))
    for reply in replies:  # the report of a model's workers that is no hash hides nothing else
        if isinstance(reply, redis.RedisError) and not (is_wrong_type(reply) and reply in replies[3:-2]):
            raise reply
    time_reply, dead_letters, dropped, *by_model = replies
    leases = run(partial(execute, client), queues.read_leases(keys))
    now_ms = decode_server_time(time_reply)
    loaded, refused = by_model[0 : 2 * len(models) : 2], by_model[1 : 2 * len(models) : 2]
    lengths, reports = by_model[-2:] if models else ([], [])
    pauses = run(partial(execute, client), read_pauses(keys))
    depths = queues.decode_depths(models, lengths, leases, pauses)
    yield from _depths(depths)
    waits = decode_reports(reports, {depth.model: depth.waiting for depth in depths}, now_ms / 1000)
    yield gauge_family(OLDEST_SECONDS, [((model,), waits.get(model, 0.0)) for model in models])
    yield from _leases(models, leases, now_ms)
    yield gauge_family(DEAD_LETTERS, [((), int(dead_letters))])
    family = CounterMetricFamily(DROPPED.name, DROPPED.help)
    family.add_metric((), int(dropped or 0))
    yield family
    yield from _versions(models, loaded, refused, now_ms)


def _depths(depths: Sequence[QueueDepth]) -> Iterator[Family]:
    yield gauge_family(
        WAITING, [((depth.model, str(step)), jobs) for depth in depths for step, jobs in depth.by_priority.items()]
    )
    yield gauge_family(ISOLATED, [((depth.model,), depth.isolated) for depth in depths])
    yield gauge_family(DELAYED, [((depth.model,), depth.delayed) for depth in depths])
    yield gauge_family(LEASED, [((depth.model,), depth.leased) for depth in depths])
    yield gauge_family(PAUSED, [((depth.model,), depth.paused is not None) for depth in depths])


def _leases(models: Sequence[str], leases: Sequence[tuple[bytes, float]], now_ms: int) -> Iterator[Family]:
    by_queue: Counter[str] = Counter()
    expired = 0
    for member, expires_ms in leases:
        if (lease := parse_lease(member)) is not None:
            by_queue[lease.queue] += 1
            expired += expires_ms < now_ms
    yield gauge_family(LEASES, [((model,), by_queue[queue_name(model)]) for model in models])
    yield gauge_family(EXPIRED, [((), expired)])


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
