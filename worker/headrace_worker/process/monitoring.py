"""What watches a worker besides its jobs: metrics, health, and where they are told. The app connects it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.connection.connect import connect
from headrace.errors import SettingError
from headrace.wire.keys import Keys
from headrace_worker.drift.collector import PSI, DriftCollector
from headrace_worker.process.health_steps import LoopHealthStep
from headrace_worker.settings import WorkerSettings
from headrace_worker.telemetry import metrics, metrics_collector
from headrace_worker.telemetry.claim_metrics import ClaimMetrics
from headrace_worker.telemetry.health import Health, HealthFile
from headrace_worker.telemetry.http_server import HttpServer
from headrace_worker.telemetry.metrics import MetricDelta
from headrace_worker.telemetry.metrics_collector import WorkerCollector, make_registry
from headrace_worker.telemetry.metrics_pipe import MetricsPipe
from headrace_worker.telemetry.prediction_log import PredictionLog
from headrace_worker.telemetry.prediction_record import parse_levels
from headrace_worker.telemetry.prediction_sinks import Sink, check_destination, make_sink

if TYPE_CHECKING:
    from headrace_worker.execution.report import Listener
    from headrace_worker.models.registry import Registry

#: Every metric of a worker, except those of prometheus-client about the main process.
SHOWN = (*metrics_collector.METRICS, PSI)

#: Seconds for which a scrape waits for Redis.
_SCRAPED_WITHIN = 1.0


class Monitoring:
    """Metrics and health of one worker."""

    def __init__(self, settings: WorkerSettings, models: Registry) -> None:
        self._settings, self._models = settings, models
        self.health = Health()
        self._feed: MetricsPipe | None = None
        self._http: HttpServer | None = None
        self._file: HealthFile | None = None
        self._wanted = parse_levels(settings.prediction_log)
        self._predictions: PredictionLog | None = None
        if self._wanted.by_model:
            check_destination(settings.prediction_log_to)

    def start(self) -> None:
        """The main process starts: be heard before the models are loaded. Exits where that cannot be."""
        settings = self._settings
        if settings.health_file:
            self._file = HealthFile(settings.health_file, self.health)
            self._file.start()
        if not settings.metrics_port:
            return
        self._feed = MetricsPipe()
        shown = WorkerCollector(self._feed, self._models, self.health.status, lambda: list(_pids()))
        quick = msgspec.structs.replace(settings, connect_timeout=_SCRAPED_WITHIN, command_timeout=_SCRAPED_WITHIN)
        drifted = DriftCollector(self._models, lambda: connect(quick, retries=0), Keys(settings.key_prefix))
        try:
            self._http = HttpServer(
                settings.metrics_address, settings.metrics_port, make_registry(shown, drifted), self.health.status
            )
        except SettingError as error:
            # Of a signal's receiver, Celery minds nothing less.
            raise SystemExit(f"headrace: {error}") from None

    def listeners(self) -> list[Listener]:
        """Who is to be told of claims in this process."""
        found: list[Listener] = []
        if self._feed is not None:
            found.append(ClaimMetrics(self._feed.send, claim_jobs=self._settings.claim_jobs))
        if self._wanted.by_model:
            self._predictions = PredictionLog(self._wanted, self._sink, self._send)
            found.append(self._predictions)
        return found

    def _sink(self, worker: str) -> Sink:
        return make_sink(self._settings, lambda: connect(self._settings), worker)

    def _send(self, tally: MetricDelta) -> None:
        if self._feed is not None:
            self._feed.send(tally)

    def process_ends(self) -> None:
        """A process that runs claims ends in good order."""
        if self._predictions is not None:
            self._predictions.close()

    def after_fork(self) -> None:
        """In a pool process: what listens and reads is the main one's."""
        if self._feed is not None:
            self._feed.after_fork()
        if self._http is not None:
            self._http.after_fork()

    def ready(self) -> None:
        """The worker is ready."""
        self.health.mark_ready()
        if self._file is not None:
            self._file.update()

    def stopping(self) -> None:
        """The worker was told to stop."""
        self.health.mark_stopping()
        if self._file is not None:
            self._file.update()

    def stop(self) -> None:
        """The worker ends."""
        self.process_ends()
        if self._file is not None:
            self._file.remove()

    def lost(self, cause: str) -> None:
        """A claim's pool process was lost, or took too long."""
        tally = MetricDelta(counters={}, histograms={})
        tally.add(metrics.CLAIMS_LOST, (cause,))
        self._send(tally)


def _pids() -> Iterator[int]:
    processes: list[Any] = list(getattr(LoopHealthStep.pool, "_pool", None) or ())
    yield from (process.pid for process in processes if process.pid)
