"""The prediction log: the inputs and outputs of jobs, for the models for which a setting turns it on.

It never blocks or fails a prediction. Claims wait for a thread in a queue that is bounded by the bytes of their
messages; records that do not fit there, or that cannot be written, are dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.wire.queues import model_name
from headrace_worker.telemetry import metrics
from headrace_worker.telemetry.metrics import MetricDelta
from headrace_worker.telemetry.pool_loops import WorkClock
from headrace_worker.telemetry.prediction_record import Levels, Record, make_records
from headrace_worker.telemetry.prediction_sinks import Sink

if TYPE_CHECKING:
    from headrace_worker.execution.report import ClaimReport

log = logging.getLogger("headrace.predictions")

#: Bytes of messages that may wait to be written.
_MAX_QUEUED_BYTES = 32 * 1024**2
#: Seconds between two calls of the sink's `idle`, and between two warnings about a sink that fails.
_IDLE_SECONDS, _WARNING_SECONDS = 1.0, 60.0
#: Seconds a process that ends waits for the queue to be written.
_CLOSE_SECONDS = 3.0


class PredictionLog:
    """A listener that logs the predictions of one process.

    `make_sink` takes the worker's name and returns the sink; `send` takes the numbers of written and dropped
    records. `work_clock` records whether claims wait. `max_bytes` bounds the messages in the queue.
    """

    def __init__(
        self,
        levels: Levels,
        make_sink: Callable[[str], Sink],
        send: Callable[[MetricDelta], None],
        work_clock: WorkClock,
        *,
        max_bytes: int = _MAX_QUEUED_BYTES,
    ) -> None:
        self._levels, self._make_sink, self._send, self._max_bytes = levels, make_sink, send, max_bytes
        self._work_clock = work_clock
        self._queue: deque[tuple[ClaimReport, int]] = deque()
        self._queued_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._last_warning = float("-inf")

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Queue the claim for the thread, or drop it if the queue is full."""
        model = model_name(report.claim.lease.queue)
        if model is None or not report.published or not self._levels.is_logged(model):
            return
        size = sum(map(len, report.claim.queued_messages))
        with self._changed:
            if fits := self._queued_bytes + size <= self._max_bytes or not self._queue:
                if not self._queue:
                    self._work_clock.mark(waiting=True)
                self._queue.append((report, size))
                self._queued_bytes += size
                self._changed.notify()
        if not fits:
            self._count(metrics.LOG_RECORDS_DROPPED, Counter({model: len(report.published)}))
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(self._make_sink(report.worker),), name="headrace-predictions", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Write the queue, within a bounded time, because the process ends."""
        if self._thread is not None:
            with self._changed:
                self._closing = True
                self._changed.notify()
            self._thread.join(_CLOSE_SECONDS)

    def _run(self, sink: Sink) -> None:
        while True:
            with self._changed:
                if not self._queue and not self._closing:
                    self._changed.wait(_IDLE_SECONDS)
                report = self._queue[0][0] if self._queue else None
                closing = self._closing
            records: list[Record] = []
            try:
                if report is not None:
                    records = list(make_records(report, self._levels))
                    if records:
                        sink.write(records)
                        self._count(metrics.LOG_RECORDS, Counter(record.model for record in records))
                elif closing:
                    sink.close()
                    return
                else:
                    sink.idle()
            except Exception as error:  # noqa: BLE001  # the log continues after any error; its text may quote a value
                self._handle_error(error, records, report)
                if closing and report is None:
                    return
            if report is not None:
                with self._changed:
                    self._queued_bytes -= self._queue.popleft()[1]
                    self._work_clock.mark(waiting=bool(self._queue))

    def _handle_error(self, error: Exception, records: list[Record], report: ClaimReport | None) -> None:
        dropped = Counter(record.model for record in records)
        if report is not None and not records:
            dropped[model_name(report.claim.lease.queue) or ""] += len(report.published or ())
        self._count(metrics.LOG_RECORDS_DROPPED, dropped)
        now = time.monotonic()
        if now - self._last_warning > _WARNING_SECONDS:
            self._last_warning = now
            reason = getattr(error, "strerror", None) or type(error).__name__
            log.warning("cannot write the prediction log: %s; records are dropped until it can be written", reason)

    def _count(self, metric: metrics.Metric, numbers: Counter[str]) -> None:
        delta = MetricDelta(counters={}, histograms={})
        for model, number in numbers.items():
            delta.add(metric, (model,), number)
        self._send(delta)
