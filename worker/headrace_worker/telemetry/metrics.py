"""What is measured, by name, and a tally of it.

A pool process tallies what becomes of its claims; the main process adds the tallies up (`feed`) and shows the sums
(`exposition`). Labels are names a worker knows, never what a message says: their number is bounded by the models.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Literal

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

#: Seconds: from an idle round trip to a file of a night.
_WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_WORK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Metric(msgspec.Struct, frozen=True):
    """One metric, as Prometheus and docs/reference/metrics.md know it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    #: Upper bounds of a histogram; the last, without bound, is not among them.
    buckets: tuple[float, ...] = ()


JOBS = Metric(
    "headrace_jobs_total", "counter", "Outcomes published, by what they are.", ("model", "version", "state")
)
DEAD_LETTERS = Metric(
    "headrace_dead_letters_total", "counter", "Jobs that became dead letters.", ("model", "reason")
)
RETRIES = Metric("headrace_retries_total", "counter", "Jobs that met an error worth another run.", ("model",))
ATTEMPTS = Metric(
    "headrace_attempts_total", "counter", "Runs that did not end their job, told when it ends.", ("model", "cause")
)
LEASE_LOSSES = Metric(
    "headrace_lease_losses_total", "counter", "Claims whose outcomes were refused: the lease was lost.", ("model",)
)
CLAIMS_LOST = Metric(
    "headrace_claims_lost_total", "counter", "Claims whose pool process was lost, by why.", ("cause",)
)
WAIT_SECONDS = Metric(
    "headrace_wait_seconds",
    "histogram",
    "From submission, or the moment a delayed job was due, to the claim, for each job whose id tells it.",
    ("model",),
    _WAITS,
)
BATCH_SECONDS = Metric(
    "headrace_batch_seconds", "histogram", "From the claim to its first batch: opened, checked.", ("model",), _WORK
)
PREDICT_SECONDS = Metric(
    "headrace_predict_seconds", "histogram", "A batch's run in its model.", ("model", "version"), _WORK
)
PUBLISH_SECONDS = Metric(
    "headrace_publish_seconds", "histogram", "From the last prediction to the end of the claim.", ("model",), _WORK
)
BATCH_ROWS = Metric("headrace_batch_rows", "histogram", "Instances in a batch.", ("model", "version"), _ROWS)
BATCHES = Metric(
    "headrace_batches_total", "counter", "Batches predicted, by why they were cut.", ("model", "version", "cut")
)
LOG_RECORDS = Metric(
    "headrace_prediction_log_records_total", "counter", "Records of the prediction log.", ("model",)
)
LOG_RECORDS_DROPPED = Metric(
    "headrace_prediction_log_dropped_total", "counter", "Records the prediction log could not take.", ("model",)
)

#: What pool processes tally.
POOL_METRICS = (
    JOBS,
    DEAD_LETTERS,
    RETRIES,
    ATTEMPTS,
    LEASE_LOSSES,
    CLAIMS_LOST,
    WAIT_SECONDS,
    BATCH_SECONDS,
    PREDICT_SECONDS,
    PUBLISH_SECONDS,
    BATCH_ROWS,
    BATCHES,
    LOG_RECORDS,
    LOG_RECORDS_DROPPED,
)
_BY_NAME = {metric.name: metric for metric in POOL_METRICS}

#: One of a metric's time series: its name and the values of its labels.
Series = tuple[str, tuple[str, ...]]


class MetricDelta(msgspec.Struct):
    """Numbers of counters, and of histograms: the sum, then how many fell into each bucket."""

    counters: dict[Series, float] = {}
    histograms: dict[Series, list[float]] = {}

    def __bool__(self) -> bool:
        return bool(self.counters or self.histograms)

    def add(self, metric: Metric, labels: tuple[str, ...], number: float = 1) -> None:
        """Count."""
        key = (metric.name, labels)
        self.counters[key] = self.counters.get(key, 0) + number

    def observe(self, metric: Metric, labels: tuple[str, ...], values: Iterable[float]) -> None:
        """Count values into a histogram; those below 0 as 0."""
        row = self.histograms.get((metric.name, labels))
        if row is None:
            row = self.histograms[metric.name, labels] = [0.0] * (len(metric.buckets) + 2)
        buckets = metric.buckets
        for value in map(max, repeat(0.0), values):
            row[0] += value
            row[1 + bisect_left(buckets, value)] += 1

    def merge(self, other: MetricDelta) -> None:
        """Add another tally to this one."""
        for key, number in other.counters.items():
            self.counters[key] = self.counters.get(key, 0) + number
        for key, row in other.histograms.items():
            mine = self.histograms.get(key)
            self.histograms[key] = row if mine is None else [a + b for a, b in zip(mine, row, strict=True)]

    def clear(self) -> None:
        """Begin anew."""
        self.counters.clear()
        self.histograms.clear()

    def encode_chunks(self, series: int) -> Iterator[bytes]:
        """The tally in messages of so many time series at the most; `read` reads one."""
        entries = [*self.counters.items(), *self.histograms.items()]
        for start in range(0, len(entries), series):
            yield _ENCODER.encode(
                [(name, labels, value) for (name, labels), value in entries[start : start + series]]
            )


def decode(message: bytes) -> MetricDelta:
    """The tally in a message. Raises msgspec.DecodeError."""
    tally = MetricDelta()
    for name, labels, value in _DECODER.decode(message):
        if isinstance(value, list):
            tally.histograms[name, labels] = value
        else:
            tally.counters[name, labels] = value
    return tally


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[tuple[str, tuple[str, ...], float | list[float]]])


def metric_families(tally: MetricDelta) -> Iterator[Family]:
    """A tally as prometheus-client shows metrics: all of `TALLIED`, also those without a number yet."""
    by_name: dict[str, list[tuple[tuple[str, ...], float | list[float]]]] = {name: [] for name in _BY_NAME}
    for (name, labels), number in tally.counters.items():
        by_name[name].append((labels, number))
    for (name, labels), row in tally.histograms.items():
        by_name[name].append((labels, row))
    for name, rows in by_name.items():
        metric = _BY_NAME[name]
        if metric.kind == "histogram":
            yield _histogram(metric, rows)
        else:
            yield _counter(metric, rows)


def gauge_family(metric: Metric, rows: Iterable[tuple[Sequence[str], float]]) -> GaugeMetricFamily:
    """A gauge with its time series."""
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def _counter(metric: Metric, rows: Iterable[tuple[tuple[str, ...], float | list[float]]]) -> CounterMetricFamily:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, number in rows:
        if isinstance(number, int | float):
            family.add_metric(labels, number)
    return family


def _histogram(
    metric: Metric, rows: Iterable[tuple[tuple[str, ...], float | list[float]]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*map(str, map(float, metric.buckets)), "+Inf"]
    for labels, row in rows:
        if not isinstance(row, list):
            continue
        total, buckets = 0.0, []
        for bound, number in zip(bounds, row[1:], strict=True):
            total += number
            buckets.append((bound, total))
        family.add_metric(labels, buckets=buckets, sum_value=row[0])
    return family
