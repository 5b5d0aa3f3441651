"""Who listens to workers beside Flower, so that the Queues page knows how fast jobs end."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from headrace.errors import HeadraceError
from headrace.monitor.overview import Monitor, Overview
from headrace.settings import Settings

#: Seconds that are listened for before it is seen who asks.
_TURN = 0.2


class QueueMonitor(threading.Thread):
    """One thread that counts events, and looks at queues when somebody asks."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="lookout", daemon=True)
        self._settings = settings
        self._asked: SimpleQueue[Future[Overview]] = SimpleQueue()

    async def look(self) -> Overview:
        """What is to be seen now. Raises BrokerUnavailable."""
        asked: Future[Overview] = Future()
        self._asked.put(asked)
        return await asyncio.wrap_future(asked)

    def run(self) -> None:
        """Listen and answer; the process's end ends it."""
        watch = Monitor(self._settings)
        while True:
            watch.listen(time.monotonic() + _TURN)
            self._answer(watch)

    def _answer(self, watch: Monitor) -> None:
        asked: list[Future[Overview]] = []
        try:
            while True:
                asked.append(self._asked.get_nowait())
        except Empty:
            pass
        if not asked:
            return
        try:
            seen = watch.read()
        except HeadraceError as error:
            for one in asked:
                one.set_exception(error)
        else:
            for one in asked:
                one.set_result(seen)
