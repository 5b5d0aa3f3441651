"""Celery's consumer, which waits for a Redis that is away for as long as it takes, and comes back soon after it.

Celery gives up after 100 tries (`broker_connection_max_retries`), waits up to 30 s between two, and never between
two connections that open and then fail, as those to a read-only replica do.
"""

from __future__ import annotations

import logging
import random
import time
import warnings
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import connection as celery_connection
from celery.worker.consumer import consumer as celery_consumer
from celery.worker.state import maybe_shutdown

from headrace.connection.outage_log import OutageLog
from headrace_worker.telemetry.health import CONSUMER

log = logging.getLogger("headrace.worker")

#: Seconds between the begins of two tries, by chance: the workers of a fleet must not come back in step.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 2.0
#: Seconds after which a consumer that waits notices that its worker shuts down.
_SHUTDOWN_CHECK_SECONDS = 0.2


class Consumer(celery_consumer.Consumer):  # type: ignore[misc]  # Celery has no types here
    """The consumer of a worker. The app sets `outages`.

    It neither mingles nor gossips. Mingling takes a second at each connection, and all workers answer all others
    when Redis returns; gossip sends each heartbeat to every worker. Headrace needs neither: cancelled jobs are in
    Redis, and lost workers show by their leases.
    """

    outages = OutageLog(log)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "without_mingle": True, "without_gossip": True})
        self._try_at = 0.0
        for module in (celery_consumer, celery_connection):
            module.logger.addFilter(self._is_news)

    def connect(self) -> Any:
        """Connect, without a pause if the last connection has served for a moment."""
        self._pause()
        return super().connect()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, and repeat it until Redis answers. Celery calls this for each of its connections."""
        while True:
            try:
                conn.ensure_connection(max_retries=0, reraise_as_library_errors=False)
            except conn.recoverable_connection_errors as error:
                self.outages.failed(CONSUMER, error)
                conn.maybe_switch_next()  # the next Sentinel
                self._pause()
            else:
                self.first_connection_attempt = False
                return conn

    def _pause(self) -> None:
        """Wait until the next try may begin. Raises WorkerShutdown or WorkerTerminate."""
        while (remaining := self._try_at - time.monotonic()) > 0:
            maybe_shutdown()
            time.sleep(min(remaining, _SHUTDOWN_CHECK_SECONDS))
        maybe_shutdown()
        self._try_at = time.monotonic() + random.uniform(_SHORTEST_PAUSE, _LONGEST_PAUSE)  # noqa: S311  # no secret

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Record that a connection failed before it was open."""
        self.outages.failed(CONSUMER, exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close a connection that failed, and record it."""
        with warnings.catch_warnings():
            # Celery warns of the setting of a later release each time, though the app sets it.
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)
        self.outages.failed(CONSUMER, exc)

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Decide whether to log a line of Celery's: in an outage it would log each connection and its loss."""
        return record.levelno > logging.WARNING or not self.outages.is_failing(CONSUMER)
