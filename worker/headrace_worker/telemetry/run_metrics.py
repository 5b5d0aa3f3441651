"""The exporter's metrics of bulk runs: rows, failed rows, chunks, states, and how long a run stands still.

The name of a run is text of its submitter, so only a limited number of runs are shown: of the newest 200, those
that go on, and the 20 that ended last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric as Family
from redis.exceptions import ResponseError

from headrace.connection.commands import Command, Operation, Pipeline, run
from headrace.connection.errors import is_wrong_type
from headrace.inspection.locate import is_not_permitted
from headrace.inspection.run_pace import measure_pace
from headrace.wire.bulk import RunProgress
from headrace.wire.keys import Keys
from headrace_worker.telemetry.metrics import Metric, gauge_family

#: Runs that are read, the newest first.
RUNS_READ = 200
#: Ended runs that are shown.
_ENDED_RUNS_SHOWN = 20

ROWS = Metric("headrace_bulk_rows_total", "counter", "Rows of a bulk run that were read.", ("run",))
FAILED_ROWS = Metric("headrace_bulk_failed_rows_total", "counter", "Rows of a bulk run that failed.", ("run",))
PLANNED_ROWS = Metric(
    "headrace_bulk_planned_rows", "gauge", "Rows of a bulk run, if they are counted beforehand.", ("run",)
)
CHUNKS = Metric("headrace_bulk_chunks", "gauge", "Chunks of a bulk run that is planned.", ("run",))
CHUNKS_DONE = Metric("headrace_bulk_chunks_done", "gauge", "Chunks of a bulk run that ended.", ("run",))
STATE = Metric("headrace_bulk_run_state", "gauge", "1 for each bulk run in its state.", ("run", "model", "state"))
IDLE_SECONDS = Metric(
    "headrace_bulk_idle_seconds",
    "gauge",
    "Seconds since the last receipt of a bulk run that has not ended, or since its start.",
    ("run",),
)

#: Every metric of bulk runs.
METRICS = (ROWS, FAILED_ROWS, PLANNED_ROWS, CHUNKS, CHUNKS_DONE, STATE, IDLE_SECONDS)


class ReadRuns(Protocol):
    """The operation that reads the newest runs, `headrace.bulk.list_runs`."""

    def __call__(self, keys: Keys, *, limit: int) -> Operation[list[RunProgress]]:
        """Read the newest runs, newest first, at most `limit`."""
        ...


def read_families(
    ask: Callable[[Command | Pipeline], Any], operation: Operation[list[RunProgress]], now_ms: int
) -> Iterator[Family]:
    """Yield the metrics of the runs in Redis; none for a Redis user who may not read runs.

    `operation` reads the newest runs.
    """
    try:
        runs = run(ask, operation)
    except ResponseError as error:
        if not (is_not_permitted(error) or is_wrong_type(error)):
            raise
        return
    yield from run_families(runs, now_ms)


def select_shown(runs: Sequence[RunProgress]) -> list[RunProgress]:
    """Return the runs that are shown: all that go on, and the last that ended."""
    over = [progress for progress in runs if progress.ended_ms is not None]
    over.sort(key=lambda progress: progress.ended_ms or 0, reverse=True)
    return [progress for progress in runs if progress.ended_ms is None] + over[:_ENDED_RUNS_SHOWN]


def run_families(runs: Sequence[RunProgress], now_ms: int) -> Iterator[Family]:
    """Yield the metrics of the runs that are shown. `now_ms` is the server's time, unix milliseconds."""
    shown = [(progress.run.name, progress) for progress in select_shown(runs)]
    yield _counter(ROWS, [(name, progress.rows_done) for name, progress in shown])
    yield _counter(FAILED_ROWS, [(name, progress.rows_failed) for name, progress in shown])
    rows = [((name,), progress.rows) for name, progress in shown if progress.rows is not None]
    yield gauge_family(PLANNED_ROWS, rows)
    chunks = [((name,), progress.chunks) for name, progress in shown if progress.chunks is not None]
    yield gauge_family(CHUNKS, chunks)
    yield gauge_family(CHUNKS_DONE, [((name,), progress.chunks_done) for name, progress in shown])
    yield gauge_family(STATE, [((name, progress.run.model, progress.state), 1) for name, progress in shown])
    idle = [((name,), measure_pace(progress, now_ms).idle_seconds) for name, progress in shown]
    yield gauge_family(IDLE_SECONDS, [(labels, seconds) for labels, seconds in idle if seconds is not None])


def _counter(metric: Metric, numbers: Iterable[tuple[str, int]]) -> CounterMetricFamily:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for run_name, number in numbers:
        family.add_metric((run_name,), number)
    return family
