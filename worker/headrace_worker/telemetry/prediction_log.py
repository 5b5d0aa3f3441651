"""The prediction log: inputs and outputs of jobs, where a setting asks for them.

It never blocks or fails a prediction: claims wait for a thread in a line bounded by their bytes, and what finds no
room there, or cannot be written, is dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.wire.keys import model_name
from headrace_worker.telemetry import metrics
from headrace_worker.telemetry.metrics import MetricDelta
from headrace_worker.telemetry.prediction_record import Levels, Record, make_records
from headrace_worker.telemetry.prediction_sinks import Sink

if TYPE_CHECKING:
    from headrace_worker.execution.report import ClaimReport

log = logging.getLogger("headrace.predictions")

#: Bytes of messages that may wait to be written.
_MOST_BYTES = 32 * 1024**2
#: Seconds between two looks of the thread when nothing happens, and between two lines about what goes wrong.
_LOOK_EVERY, _SAY_EVERY = 1.0, 60.0
#: Seconds a process that ends goes on writing.
_ENDS_WITHIN = 3.0


class PredictionLog:
    """Keeps records of the claims of one process. `sink` makes its sink; `send` takes tallies of what was kept."""

    def __init__(
        self,
        wanted: Levels,
        sink: Callable[[str], Sink],
        send: Callable[[MetricDelta], None],
        *,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._wanted, self._make, self._send, self._most = wanted, sink, send, most_bytes
        self._line: deque[tuple[ClaimReport, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._said = float("-inf")

    def on_claim_finished(self, report: ClaimReport) -> None:
        """A claim has ended."""
        model = model_name(report.claim.lease.queue)
        if model is None or not report.published or not self._wanted.keeps(model):
            return
        size = sum(map(len, report.claim.queued_messages))
        with self._changed:
            if room := self._bytes + size <= self._most or not self._line:
                self._line.append((report, size))
                self._bytes += size
                self._changed.notify()
        if not room:
            self._count(metrics.LOG_RECORDS_DROPPED, Counter({model: len(report.published)}))
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(self._make(report.worker),), name="headrace-predictions", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """The process ends: write what waits, within bounded time."""
        if self._thread is not None:
            with self._changed:
                self._ending = True
                self._changed.notify()
            self._thread.join(_ENDS_WITHIN)

    def _run(self, sink: Sink) -> None:
        while True:
            with self._changed:
                if not self._line and not self._ending:
                    self._changed.wait(_LOOK_EVERY)
                report = self._line[0][0] if self._line else None
                ending = self._ending
            found: list[Record] = []
            try:
                if report is not None:
                    found = list(make_records(report, self._wanted))
                    if found:
                        sink.write(found)
                        self._count(metrics.LOG_RECORDS, Counter(record.model for record in found))
                elif ending:
                    sink.close()
                    return
                else:
                    sink.idle()
            except Exception as error:  # noqa: BLE001  # whatever it was, the log goes on; its message may quote a value
                self._fail(error, found, report)
                if ending and report is None:
                    return
            if report is not None:
                with self._changed:
                    self._bytes -= self._line.popleft()[1]

    def _fail(self, error: Exception, found: list[Record], report: ClaimReport | None) -> None:
        lost = Counter(record.model for record in found)
        if report is not None and not found:
            lost[model_name(report.claim.lease.queue) or ""] += len(report.published or ())
        self._count(metrics.LOG_RECORDS_DROPPED, lost)
        now = time.monotonic()
        if now - self._said > _SAY_EVERY:
            self._said = now
            told = getattr(error, "strerror", None) or type(error).__name__
            log.warning("the prediction log cannot be written: %s", told)

    def _count(self, metric: metrics.Metric, numbers: Counter[str]) -> None:
        tally = MetricDelta(counters={}, histograms={})
        for model, number in numbers.items():
            tally.add(metric, (model,), number)
        self._send(tally)
