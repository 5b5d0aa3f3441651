"""What Redis tells of queues, leases, dead letters and models, as metrics. Read when asked for, nothing kept.

Few round trips a scrape: the names of the models, the leases, and everything else of all of them.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import redis
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from headrace.catalog.workers import decode_loaded, decode_refused, read_loaded, read_refused
from headrace.connection.commands import Pipeline, execute, run
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.errors import InvalidInput
from headrace.inspection import queues
from headrace.inspection.queues import QueueDepth
from headrace.wire.keys import Keys, check_model_name, queue_name
from headrace_worker.telemetry.metrics import Metric, gauge_family
from headrace_worker.transport.leases import lease_of

log = logging.getLogger("headrace.exporter")

UP = Metric("headrace_redis_up", "gauge", "Whether Redis answered this scrape.")
READ = Metric("headrace_exporter_read_seconds", "gauge", "How long Redis took to answer this scrape.")
READY = Metric("headrace_queue_waiting", "gauge", "Jobs that wait for a worker.", ("model", "priority"))
AGAIN = Metric(
    "headrace_queue_isolated", "gauge", "Jobs that run again before all others, each alone.", ("model",)
)
DELAYED = Metric("headrace_queue_delayed", "gauge", "Jobs whose time has not come.", ("model",))
LEASED = Metric("headrace_queue_leased", "gauge", "Jobs a worker has taken.", ("model",))
OLDEST = Metric(
    "headrace_queue_oldest_seconds",
    "gauge",
    "Age of the job that waits longest, as far as its id tells; 0 where none waits.",
    ("model",),
)
CLAIMS = Metric("headrace_leases", "gauge", "Claims under lease.", ("model",))
LAPSED = Metric("headrace_leases_expired", "gauge", "Leases whose time is over and that nobody has swept up.")
DEAD = Metric("headrace_dead_letters", "gauge", "Dead letters kept.")
DROPPED = Metric(
    "headrace_dead_letters_dropped_total", "counter", "Dead letters dropped: too many, or kept too long."
)
WORKERS = Metric("headrace_model_workers", "gauge", "Workers that have a version in memory.", ("model", "version"))
REFUSED = Metric(
    "headrace_model_refused", "gauge", "1 for each version that workers refuse to serve.", ("model", "version")
)

#: All that the exporter shows.
METRICS = (UP, READ, READY, AGAIN, DELAYED, LEASED, OLDEST, CLAIMS, LAPSED, DEAD, DROPPED, WORKERS, REFUSED)


class QueueCollector(Collector):
    """Metrics of one Redis. `connect` gives the connection when it is first needed."""

    def __init__(self, connect: Callable[[], redis.Redis], prefix: str = "") -> None:
        self._connect, self._keys = connect, Keys(prefix)
        self._client: redis.Redis | None = None
        self._failed = False

    def describe(self) -> Sequence[Family]:
        """Nothing: to register must not wait for Redis."""
        return ()

    def collect(self) -> Iterator[Family]:
        """All of it, now; only that Redis is not up where it does not answer."""
        began = time.monotonic()
        try:
            if self._client is None:
                self._client = self._connect()
            found = list(_read(self._client, self._keys))
            self._failed = False
        except redis.RedisError as error:
            if not self._failed:  # once, not at each scrape
                log.warning("Redis does not answer: %s", type(error).__name__)
            self._failed, found = True, []
        yield gauge_family(UP, [((), float(not self._failed))])
        yield gauge_family(READ, [((), time.monotonic() - began)])
        yield from found


def _read(client: redis.Redis, keys: Keys) -> Iterator[Family]:
    models = sorted(_names(execute(client, Pipeline((("SMEMBERS", keys.models),)))[0]))
    asked: list[tuple[Any, ...]] = [
        READ_SERVER_TIME.args,
        ("ZCARD", keys.dead_times),
        ("GET", keys.dead_dropped),
    ]
    for model in models:
        asked += [read_loaded(keys, model).args, read_refused(keys, model).args]
    if models:
        asked += [
            queues.measure_command(keys, models).with_source,
            queues.next_jobs_command(keys, models).with_source,
        ]
    replies = execute(client, Pipeline(tuple(asked)))
    for reply in replies:
        if isinstance(reply, redis.RedisError):
            raise reply
    time_reply, dead, dropped, *rest = replies
    leases = run(partial(execute, client), queues.read_leases(keys))
    now_ms = decode_server_time(time_reply)
    said = {model: (rest[2 * at], rest[2 * at + 1]) for at, model in enumerate(models)}
    measured, ids = rest[-2:] if models else ([], [])
    depths = queues.decode_depths(models, measured, leases)
    yield from _depths(depths)
    waits = queues.oldest_waits(models, ids, now_ms / 1000)
    yield gauge_family(OLDEST, [((model,), waits.get(model, 0.0)) for model in models])
    yield from _leases(models, leases, now_ms)
    yield gauge_family(DEAD, [((), int(dead))])
    family = CounterMetricFamily(DROPPED.name, DROPPED.help)
    family.add_metric((), int(dropped or 0))
    yield family
    yield from _versions(said, now_ms)


def _names(members: Sequence[bytes]) -> Iterator[str]:
    for member in members:
        with suppress(InvalidInput, UnicodeDecodeError):  # what is no name of a model is no label
            yield check_model_name(member.decode())


def _depths(depths: Sequence[QueueDepth]) -> Iterator[Family]:
    yield gauge_family(
        READY, [((one.model, str(step)), jobs) for one in depths for step, jobs in one.by_priority.items()]
    )
    yield gauge_family(AGAIN, [((one.model,), one.isolated) for one in depths])
    yield gauge_family(DELAYED, [((one.model,), one.delayed) for one in depths])
    yield gauge_family(LEASED, [((one.model,), one.leased) for one in depths])


def _leases(models: Sequence[str], leases: Sequence[tuple[bytes, float]], now_ms: int) -> Iterator[Family]:
    held: Counter[str] = Counter()
    lapsed = 0
    for member, until in leases:
        if (lease := lease_of(member)) is not None:
            held[lease.queue] += 1
            lapsed += until < now_ms
    yield gauge_family(CLAIMS, [((model,), held[queue_name(model)]) for model in models])
    yield gauge_family(LAPSED, [((), lapsed)])


def _versions(said: dict[str, tuple[Any, Any]], now_ms: int) -> Iterator[Family]:
    workers: Counter[tuple[str, str]] = Counter()
    refused: list[tuple[str, str]] = []
    for model, (has, refuses) in said.items():
        for one in decode_loaded(has, now_ms).values():
            workers.update((model, version) for version in one.versions)
        refused += [(model, version) for version in decode_refused(refuses, now_ms)]
    yield gauge_family(WORKERS, workers.items())
    yield gauge_family(REFUSED, [(labels, 1) for labels in refused])
