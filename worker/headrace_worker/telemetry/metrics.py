"""The metrics that pool processes count, by name, and `MetricDelta`, the numbers they add to them.

A pool process counts its claims in a delta. The main process adds the deltas up (`metrics_pipe`) and shows the
totals (`metrics_collector`). Labels are names the worker knows, never text of a message, so the models bound the
number of time series.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Literal

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

#: Upper bounds in seconds of a job's wait: from an idle round trip to a file that waits overnight.
_WAIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
#: Upper bounds in seconds of the steps of a claim.
_STEP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
#: Upper bounds of the instances in a batch.
_INSTANCE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Metric(msgspec.Struct, frozen=True):
    """The declaration of one metric, as in docs/reference/metrics.md."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    #: The upper bounds of a histogram; the last bucket, which has no bound, is not listed.
    buckets: tuple[float, ...] = ()


JOBS = Metric("headrace_jobs_total", "counter", "Outcomes published, by state.", ("model", "version", "state"))
DEAD_LETTERS = Metric(
    "headrace_dead_letters_total", "counter", "Jobs that became dead letters, by reason.", ("model", "reason")
)
RETRIES = Metric("headrace_retries_total", "counter", "Jobs that run again after an error.", ("model",))
ATTEMPTS = Metric(
    "headrace_attempts_total",
    "counter",
    "Attempts that did not end their job, by cause; counted when the job ends.",
    ("model", "cause"),
)
LEASE_LOSSES = Metric(
    "headrace_lease_losses_total",
    "counter",
    "Claims whose outcomes were refused because the lease was lost.",
    ("model",),
)
CLAIMS_LOST = Metric(
    "headrace_claims_lost_total", "counter", "Claims whose pool process was lost, by cause.", ("cause",)
)
WAIT_SECONDS = Metric(
    "headrace_wait_seconds",
    "histogram",
    "Seconds from a job's submission, or the moment a delayed job was due, to its claim.",
    ("model",),
    _WAIT_BUCKETS,
)
BATCH_SECONDS = Metric(
    "headrace_batch_seconds",
    "histogram",
    "Seconds from a claim to its first batch: parsing and checking.",
    ("model",),
    _STEP_BUCKETS,
)
PREDICT_SECONDS = Metric(
    "headrace_predict_seconds",
    "histogram",
    "Seconds a batch ran in its model.",
    ("model", "version"),
    _STEP_BUCKETS,
)
PUBLISH_SECONDS = Metric(
    "headrace_publish_seconds",
    "histogram",
    "Seconds from the last prediction of a claim to the end of the claim.",
    ("model",),
    _STEP_BUCKETS,
)
BATCH_INSTANCES = Metric(
    "headrace_batch_instances", "histogram", "Instances in a batch.", ("model", "version"), _INSTANCE_BUCKETS
)
BATCHES = Metric(
    "headrace_batches_total",
    "counter",
    "Batches predicted, by the reason they hold no more jobs.",
    ("model", "version", "cut"),
)
LOG_RECORDS = Metric(
    "headrace_prediction_log_records_total", "counter", "Records written to the prediction log.", ("model",)
)
LOG_RECORDS_DROPPED = Metric(
    "headrace_prediction_log_dropped_total", "counter", "Records the prediction log dropped.", ("model",)
)

#: Every metric that pool processes count.
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
    BATCH_INSTANCES,
    BATCHES,
    LOG_RECORDS,
    LOG_RECORDS_DROPPED,
)
_BY_NAME = {metric.name: metric for metric in POOL_METRICS}

#: One time series of a metric: the metric's name and the values of its labels.
Series = tuple[str, tuple[str, ...]]


class MetricDelta(msgspec.Struct):
    """Numbers to add to counters and histograms.

    The numbers of a histogram are the sum of its values, then the count of values in each bucket.
    """

    counters: dict[Series, float] = {}
    histograms: dict[Series, list[float]] = {}

    def __bool__(self) -> bool:
        return bool(self.counters or self.histograms)

    def add(self, metric: Metric, labels: tuple[str, ...], number: float = 1) -> None:
        """Add a number to a counter."""
        key = (metric.name, labels)
        self.counters[key] = self.counters.get(key, 0) + number

    def observe(self, metric: Metric, labels: tuple[str, ...], values: Iterable[float]) -> None:
        """Add values to a histogram; a negative value counts as 0."""
        numbers = self.histograms.get((metric.name, labels))
        if numbers is None:
            numbers = self.histograms[metric.name, labels] = [0.0] * (len(metric.buckets) + 2)
        buckets = metric.buckets
        for value in map(max, repeat(0.0), values):
            numbers[0] += value
            numbers[1 + bisect_left(buckets, value)] += 1

    def merge(self, other: MetricDelta) -> None:
        """Add the numbers of another delta to this one."""
        for key, number in other.counters.items():
            self.counters[key] = self.counters.get(key, 0) + number
        for key, added in other.histograms.items():
            numbers = self.histograms.get(key)
            self.histograms[key] = (
                added if numbers is None else [a + b for a, b in zip(numbers, added, strict=True)]
            )

    def encode_chunks(self, series: int) -> Iterator[bytes]:
        """Encode the delta in messages of at most `series` time series each; `decode` reads one."""
        entries = [*self.counters.items(), *self.histograms.items()]
        for start in range(0, len(entries), series):
            yield _ENCODER.encode(
                [(name, labels, value) for (name, labels), value in entries[start : start + series]]
            )


def decode(message: bytes) -> MetricDelta:
    """Return the delta in a message. Raises one of DECODE_ERRORS."""
    delta = MetricDelta()
    for name, labels, value in _DECODER.decode(message):
        if isinstance(value, list):
            delta.histograms[name, labels] = value
        else:
            delta.counters[name, labels] = value
    return delta


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[tuple[str, tuple[str, ...], float | list[float]]])


def metric_families(totals: MetricDelta) -> Iterator[Family]:
    """Yield every metric of `POOL_METRICS` in prometheus-client's form, also those without numbers yet."""
    by_name: dict[str, list[tuple[tuple[str, ...], float | list[float]]]] = {name: [] for name in _BY_NAME}
    for (name, labels), number in totals.counters.items():
        by_name[name].append((labels, number))
    for (name, labels), numbers in totals.histograms.items():
        by_name[name].append((labels, numbers))
    for name, series in by_name.items():
        metric = _BY_NAME[name]
        if metric.kind == "histogram":
            yield _histogram(metric, series)
        else:
            yield _counter(metric, series)


def gauge_family(metric: Metric, series: Iterable[tuple[Sequence[str], float]]) -> GaugeMetricFamily:
    """Return a gauge in prometheus-client's form. `series` are pairs of label values and the number."""
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in series:
        family.add_metric(labels, value)
    return family


def _counter(metric: Metric, series: Iterable[tuple[tuple[str, ...], float | list[float]]]) -> CounterMetricFamily:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, number in series:
        if isinstance(number, int | float):
            family.add_metric(labels, number)
    return family


def _histogram(
    metric: Metric, series: Iterable[tuple[tuple[str, ...], float | list[float]]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*map(str, map(float, metric.buckets)), "+Inf"]
    for labels, numbers in series:
        if not isinstance(numbers, list):
            continue
        total, buckets = 0.0, []
        for bound, number in zip(bounds, numbers[1:], strict=True):
            total += number
            buckets.append((bound, total))
        family.add_metric(labels, buckets=buckets, sum_value=numbers[0])
    return family
