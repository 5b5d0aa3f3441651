"""Run the handlers of ended jobs in asyncio, a task for each name.

`headrace.client.blocking.handlers` has the same name for threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from headrace.client.aio.listener import AsyncListener
from headrace.client.handlers import Handler, select_handlers, stop_on_signals

log = logging.getLogger("headrace.listen")


async def run_handlers(listen: Callable[..., AsyncListener], names: Sequence[str]) -> None:
    """Call the handlers of these names, or all, until a signal. `listen` makes the listener of a name."""
    selected = select_handlers(names, is_async=True)
    listeners = [
        listen(handler.name, lease=handler.lease, max_deliveries=handler.max_deliveries) for handler in selected
    ]

    def stop() -> None:
        for listener in listeners:
            listener.stop()

    tasks = [asyncio.create_task(_run(*pair)) for pair in zip(listeners, selected, strict=True)]
    with stop_on_signals(stop):
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        finally:
            stop()
            results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _run(listener: AsyncListener, handler: Handler) -> None:
    async with listener:
        async for job in listener:
            try:
                await handler.function(job)
            except Exception as error:
                log.exception("the handler of %s failed for job %s", handler.name, job.id)
                await listener.fail(type(error).__name__)
