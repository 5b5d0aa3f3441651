"""The Queues page: waiting, delayed and leased jobs of each queue, its rate and the predicted wait."""

from __future__ import annotations

import msgspec

from headrace.catalog.pauses import Pause
from headrace.inspection.notices import NoticeState
from headrace.monitor.capacity import predict_wait
from headrace.monitor.overview import Overview
from headrace_worker.dashboard.page import Page
from headrace_worker.dashboard.tasks import CHART_FUNCTIONS

#: Queues whose models have charts on the page.
_MAX_CHARTS = 40


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One queue at one moment."""

    model: str
    queue: str
    waiting: int
    #: Waiting jobs by priority step, without the isolated ones.
    by_priority: dict[int, int]
    #: Waiting jobs that run before all others and each alone, because a crash returned them to the queue.
    isolated: int
    delayed: int
    #: Delayed jobs whose time has come.
    due: int
    leased: int
    #: The jobs that want a worker: waiting, due and leased.
    backlog: int
    #: Seconds that the oldest waiting job has waited; None where no job waits, or its id holds no time.
    oldest_seconds: float | None
    #: Finished jobs a second, over the last ten seconds; None where the Redis user may not read events.
    jobs_per_second: float | None
    #: Seconds that a job submitted now would wait at this rate; None where jobs wait and none finishes, and while
    #: the model is paused.
    predicted_wait_seconds: float | None
    #: The pause of the model; None if it is not paused.
    paused: Pause | None


class QueuePage(msgspec.Struct, frozen=True, kw_only=True):
    """All queues, and the number of dead letters."""

    queues: tuple[Queue, ...]
    #: None where the Redis user may not count dead letters.
    dead_letters: int | None
    #: None where it may not read notices.
    notices: NoticeState | None = None


class Queues(Page):
    """The queues of all models."""

    async def get(self) -> None:
        """Show the queues."""
        content = queue_page(await self.application.queue_monitor.read())
        models = dict.fromkeys(queue.model for queue in content.queues[:_MAX_CHARTS])
        hours = {model: hour for model in models if (hour := self.application.last_hour.read(model)).is_active}
        self.answer("queues.html", content, hours=hours, with_depth=True, **CHART_FUNCTIONS)


def queue_page(overview: Overview) -> QueuePage:
    """Return the content of the page for an overview."""
    finished = {
        activity.model: activity.succeeded_per_second + activity.failed_per_second
        for activity in overview.models or ()
    }
    queues = []
    for depth in overview.queues:
        key = depth.queue if depth.is_bulk else depth.model
        rate = None if overview.models is None else finished.get(key, 0.0)
        queues.append(
            Queue(
                model=depth.model,
                queue=depth.queue,
                waiting=depth.waiting,
                by_priority=depth.by_priority,
                isolated=depth.isolated,
                delayed=depth.delayed,
                due=depth.due,
                backlog=depth.backlog,
                leased=depth.leased,
                oldest_seconds=overview.oldest_wait_seconds.get(key),
                jobs_per_second=rate,
                predicted_wait_seconds=predict_wait(depth, rate or 0.0),
                paused=depth.paused,
            )
        )
    return QueuePage(queues=tuple(queues), dead_letters=overview.dead_letters, notices=overview.notices)
