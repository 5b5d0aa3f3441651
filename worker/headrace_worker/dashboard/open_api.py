"""Flower's API that reads, where Flower runs without a login.

Flower refuses its whole API there, unless FLOWER_UNAUTHENTICATED_API is set, which also lets the pages of any
other site read it and act. Here, the addresses that only read answer, and to other sites they stay unreadable.
"""

from __future__ import annotations

from typing import Any

from flower.api.tasks import GetQueueLengths, ListTasks, ListTaskTypes, TaskInfo
from flower.api.workers import ListWorkers
from tornado import web


class _Open:
    """Skips the refusal that `prepare` of Flower's API makes."""

    application: Any

    def prepare(self) -> None:
        """Accept the request, as there is no login."""
        if not self.application.is_open:
            super().prepare()  # type: ignore[misc]  # Flower's handler is the other base


class _Tasks(_Open, ListTasks):  # type: ignore[misc]  # flower has no types
    pass


class _TaskTypes(_Open, ListTaskTypes):  # type: ignore[misc]  # as above
    pass


class _TaskInfo(_Open, TaskInfo):  # type: ignore[misc]  # as above
    pass


class _QueueLengths(_Open, GetQueueLengths):  # type: ignore[misc]  # as above
    pass


class _Workers(_Open, ListWorkers):  # type: ignore[misc]  # as above
    pass


def list_handlers() -> list[Any]:
    """Return the handlers that take the place of Flower's own."""
    return [
        web.url(r"/api/tasks", _Tasks),
        web.url(r"/api/task/types", _TaskTypes),
        web.url(r"/api/task/info/(.*)", _TaskInfo),
        web.url(r"/api/queues/length", _QueueLengths),
        web.url(r"/api/workers", _Workers),
    ]
