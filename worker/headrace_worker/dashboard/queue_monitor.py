"""A thread that counts worker events beside Flower, for the rates on the Queues page."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from headrace.monitor.overview import Monitor, Overview
from headrace.settings import Settings

log = logging.getLogger("headrace.dashboard")

#: Seconds of listening to events between two checks for requests.
_LISTEN_SECONDS = 0.2


class QueueMonitor(threading.Thread):
    """A daemon thread that owns a Monitor: it counts events, and reads the queues on request."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="queue-monitor", daemon=True)
        self._settings = settings
        self._requests: SimpleQueue[Future[Overview]] = SimpleQueue()

    async def read(self) -> Overview:
        """Return the overview of this moment. Raises BrokerUnavailable."""
        request: Future[Overview] = Future()
        self._requests.put(request)
        return await asyncio.wrap_future(request)

    def run(self) -> None:
        """Count events and answer requests until the process ends."""
        monitor = Monitor(self._settings)
        while True:
            try:
                monitor.listen(time.monotonic() + _LISTEN_SECONDS)
            except Exception as error:  # noqa: BLE001  # no event may end the thread, which pages wait for
                log.warning("events of workers cannot be counted: %s: %s", type(error).__name__, error)
                time.sleep(_LISTEN_SECONDS)
            self._answer(monitor)

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
