"""Find outcomes that were stored without their notice, and jobs under way that nobody knows any more.

A script of Headrace stores the notice with the outcome. A Celery worker without Headrace does not, nor does a
worker of a release before notices.
"""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError

from headrace.text import plural
from headrace_gateway.notify.storage import NoticeStore

log = logging.getLogger("headrace.notify")

#: Seconds between two pages, so that a sweep through many jobs is no load.
_PAGE_PAUSE = 0.1


async def sweep_forever(store: NoticeStore, seconds: float) -> None:
    """Sweep each `seconds`, until cancelled."""
    while True:
        try:
            stored, removed = await sweep(store)
        except RedisError as error:
            log.warning("Redis does not answer (%s); the sweep for missing notices is repeated", error)
        else:
            if stored:
                log.info("stored %s of outcomes that had none", plural(stored, "notice"))
            if removed:
                log.warning("%s with a notice left no record and no outcome; none is sent", plural(removed, "job"))
        await asyncio.sleep(seconds)


async def sweep(store: NoticeStore) -> tuple[int, int]:
    """Sweep once. Return the numbers of stored notices, and of jobs that are under way no more."""
    start = stored = removed = 0
    while (page := await store.sweep(start)).jobs:
        # The jobs that this page removed no longer stand before the next one.
        start += page.jobs - page.stored - page.removed
        stored, removed = stored + page.stored, removed + page.removed
        await asyncio.sleep(_PAGE_PAUSE)
    return stored, removed
