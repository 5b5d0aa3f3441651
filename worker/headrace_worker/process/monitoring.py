"""Monitoring of one worker: its metrics, its health and its prediction log, started and stopped with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.connection.connect import connect
from headrace.connection.outage_log import OutageLog, explainer
from headrace.connection.url import describe_server
from headrace.wire.keys import Keys
from headrace_worker.drift.collector import PSI, DriftCollector
from headrace_worker.process.health_steps import LoopHealthStep
from headrace_worker.process.pool_loads import PoolLoads
from headrace_worker.process.startup import exit_on_error
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry import metrics, metrics_collector
from headrace_worker.telemetry.claim_metrics import ClaimMetrics
from headrace_worker.telemetry.health import Health, HealthFile
from headrace_worker.telemetry.http_server import HttpServer
from headrace_worker.telemetry.loops import LATE_SECONDS
from headrace_worker.telemetry.metrics import MetricDelta
from headrace_worker.telemetry.metrics_collector import WorkerCollector, make_registry
from headrace_worker.telemetry.metrics_pipe import MetricsPipe
from headrace_worker.telemetry.pool_loops import PoolLoop
from headrace_worker.telemetry.prediction_log import PredictionLog
from headrace_worker.telemetry.prediction_record import parse_levels
from headrace_worker.telemetry.prediction_sinks import Sink, check_destination, make_sink

if TYPE_CHECKING:
    from headrace_worker.execution.report import Listener
    from headrace_worker.models.registry import Registry

log = logging.getLogger("headrace.worker")

#: Every metric of a worker, except those of prometheus-client about the main process.
METRICS = (*metrics_collector.METRICS, PSI)

#: Seconds for which a scrape waits for Redis.
_SCRAPE_TIMEOUT = 1.0
#: Seconds for which claims may wait to be logged while none is. A write to a slow store takes far less.
PREDICTION_LOG_LATE_SECONDS = 120.0


class Monitoring:
    """Metrics, health and prediction log of one worker. Raises SettingError if their settings are invalid."""

    def __init__(self, settings: WorkerSettings, models: Registry) -> None:
        self._settings, self._models = settings, models
        self.health = Health(outages=OutageLog(log, explainer(settings)), server=describe_server(settings))
        self._metrics_pipe: MetricsPipe | None = None
        self._http_server: HttpServer | None = None
        self._health_file: HealthFile | None = None
        self._levels = parse_levels(settings.prediction_log)
        self._prediction_log: PredictionLog | None = None
        self._prediction_loop = PoolLoop(
            "prediction-log", late_after=PREDICTION_LOG_LATE_SECONDS, pids=lambda: list(_pids())
        )
        self.health.add_loop(self._prediction_loop)
        self.pool_loads = PoolLoads(lambda: list(_pids()))
        self.health.add_loop(self.pool_loads)
        if self._levels.by_model:
            check_destination(settings.prediction_log_to)

    def start(self) -> None:
        """Write the health file and serve metrics, before the models are loaded. Exit if the port is in use."""
        settings = self._settings
        if settings.health_file:
            self._health_file = HealthFile(settings.health_file, self.health)
            self._health_file.start()
        if not settings.metrics_port:
            return
        self._metrics_pipe = MetricsPipe(self.health.watch_loop("metrics", late_after=LATE_SECONDS))
        collector = WorkerCollector(self._metrics_pipe, self._models, self.health, lambda: list(_pids()))
        quick = msgspec.structs.replace(settings, connect_timeout=_SCRAPE_TIMEOUT, command_timeout=_SCRAPE_TIMEOUT)
        drift = DriftCollector(self._models, lambda: connect(quick, retries=0), Keys(settings.key_prefix))
        with exit_on_error():
            self._http_server = HttpServer(
                settings.metrics_address,
                settings.metrics_port,
                make_registry(collector, drift),
                self.health.status,
                self.health.watch_loop("http", late_after=LATE_SECONDS),
            )

    def make_listeners(self) -> list[Listener]:
        """Return new listeners for the claims of this process."""
        listeners: list[Listener] = []
        if self._metrics_pipe is not None:
            listeners.append(ClaimMetrics(self._metrics_pipe.send, claim_jobs=self._settings.claim_jobs))
        if self._levels.by_model:
            work_clock = self._prediction_loop.work_clock()
            self._prediction_log = PredictionLog(self._levels, self._make_sink, self._send, work_clock)
            listeners.append(self._prediction_log)
        return listeners

    def _make_sink(self, worker: str) -> Sink:
        return make_sink(self._settings, lambda: connect(self._settings), worker)

    def _send(self, delta: MetricDelta) -> None:
        if self._metrics_pipe is not None:
            self._metrics_pipe.send(delta)

    def close_prediction_log(self) -> None:
        """Write what the prediction log still holds: a process that ran claims ends."""
        if self._prediction_log is not None:
            self._prediction_log.close()

    def after_fork(self) -> None:
        """Close, in a pool process, what belongs to the main process: its HTTP server, and its end of the pipe."""
        if self._metrics_pipe is not None:
            self._metrics_pipe.after_fork()
        if self._http_server is not None:
            self._http_server.after_fork()

    def mark_ready(self) -> None:
        """Report that the worker is ready."""
        self.health.mark_ready()
        if self._health_file is not None:
            self._health_file.update()

    def mark_stopping(self) -> None:
        """Report that the worker was told to stop."""
        self.health.mark_stopping()
        if self._health_file is not None:
            self._health_file.update()

    def stop(self) -> None:
        """Close the prediction log and remove the health file: the worker ends."""
        self.close_prediction_log()
        if self._health_file is not None:
            self._health_file.remove()

    def count_lost_claim(self, cause: str) -> None:
        """Count a claim whose pool process was lost or killed, by its cause: `crash` or `timeout`."""
        delta = MetricDelta(counters={}, histograms={})
        delta.add(metrics.CLAIMS_LOST, (cause,))
        self._send(delta)


def _pids() -> Iterator[int]:
    processes: list[Any] = list(getattr(LoopHealthStep.pool, "_pool", None) or ())
    yield from (process.pid for process in processes if process.pid)
