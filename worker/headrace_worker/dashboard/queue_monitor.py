"""A thread that counts worker events beside Flower, for the rates on the Queues page.

The page says so if the thread is dead or late, and so do `/healthcheck` and the metrics of Flower.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from headrace.errors import BrokerUnavailable, HeadraceError
from headrace.monitor.overview import Monitor, Overview
from headrace.settings import Settings
from headrace_worker.dashboard.last_hour import LastHour
from headrace_worker.telemetry.loops import LATE_SECONDS, LoopHealth

#: Seconds of listening to events between two checks for requests.
_LISTEN_SECONDS = 0.2
#: Seconds between two looks at the depths of the queues: three for each minute of a chart.
_DEPTH_SECONDS = 20.0


class QueueMonitor(threading.Thread):
    """A daemon thread that owns a Monitor: it counts events, and reads the queues on request."""

    def __init__(self, settings: Settings, last_hour: LastHour) -> None:
        super().__init__(name="queue-monitor", daemon=True)
        self._settings, self._last_hour = settings, last_hour
        #: The monotonic clock when the depths are read next.
        self._next_depths = 0.0
        self._requests: SimpleQueue[Future[Overview]] = SimpleQueue()
        self.loop = LoopHealth("queue-monitor", late_after=LATE_SECONDS)

    async def read(self) -> Overview:
        """Return the overview of this moment.

        Raises BrokerUnavailable, and HeadraceError if the thread is dead or late.
        """
        status = self.loop.status()
        if status is not None and status.problem is not None:
            raise HeadraceError(status.problem)
        request: Future[Overview] = Future()
        self._requests.put(request)
        return await asyncio.wrap_future(request)

    def run(self) -> None:
        """Count events and answer requests until the process ends."""
        self.loop.begin_round()
        monitor = Monitor(self._settings)
        self.loop.run_rounds(lambda: self._run_round(monitor), threading.Event(), 0)

    def _run_round(self, monitor: Monitor) -> None:
        """Count the events of a moment, whatever they are, and answer the requests that came meanwhile."""
        try:
            monitor.listen(time.monotonic() + _LISTEN_SECONDS)
        finally:
            self._answer(monitor)
        if time.monotonic() >= self._next_depths:
            self._next_depths = time.monotonic() + _DEPTH_SECONDS
            self._record_depths(monitor)

    def _record_depths(self, monitor: Monitor) -> None:
        """Store the depths of the queues for the charts. While Redis is away, there are none."""
        with contextlib.suppress(BrokerUnavailable):
            for depth in monitor.read().queues:
                if not depth.is_bulk:
                    self._last_hour.record_depth(depth.model, depth.waiting)

    def _answer(self, monitor: Monitor) -> None:
        """Answer all requests so far with one look at the queues."""
        requests: list[Future[Overview]] = []
        try:
            while True:
                requests.append(self._requests.get_nowait())
        except Empty:
            pass
        if not requests:
            return
        try:
            overview = monitor.read()
        except Exception as error:  # noqa: BLE001  # whoever asked must not wait for ever
            for request in requests:
                request.set_exception(error)
        else:
            for request in requests:
                request.set_result(overview)
