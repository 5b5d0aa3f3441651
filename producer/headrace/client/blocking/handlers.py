"""Run the handlers of ended jobs in threads, one for each name.

`headrace.client.aio.handlers` has the same name for asyncio.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from headrace.client.blocking.listener import Listener
from headrace.client.handlers import Handler, select_handlers, stop_on_signals

log = logging.getLogger("headrace.listen")


def run_handlers(listen: Callable[..., Listener], names: Sequence[str]) -> None:
    """Call the handlers of these names, or all, until a signal. `listen` makes the listener of a name."""
    selected = select_handlers(names, is_async=False)
    listeners = [
        listen(handler.name, lease=handler.lease, max_deliveries=handler.max_deliveries) for handler in selected
    ]

    def stop() -> None:
        for listener in listeners:
            listener.stop()

    with stop_on_signals(stop), ThreadPoolExecutor(len(selected), "headrace-listen") as executor:
        futures = [executor.submit(_run, *pair) for pair in zip(listeners, selected, strict=True)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop()
    for future in futures:
        future.result()


def _run(listener: Listener, handler: Handler) -> None:
    with listener:
        for job in listener:
            try:
                handler.function(job)
            except Exception as error:
                log.exception("the handler of %s failed for job %s", handler.name, job.id)
                listener.fail(type(error).__name__)
