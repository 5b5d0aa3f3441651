"""The Queues page: waiting, delayed and leased jobs of each queue, its rate and the predicted wait."""

from __future__ import annotations

import msgspec

from headrace.catalog.pauses import Pause
from headrace.monitor.overview import Overview
from headrace_worker.dashboard.page import Page


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
    leased: int
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


class Queues(Page):
    """The queues of all models."""

    async def get(self) -> None:
        """Show the queues."""
        self.answer("queues.html", queue_page(await self.application.queue_monitor.read()))


def queue_page(overview: Overview) -> QueuePage:
    """Return the content of the page for an overview."""
    finished = {
        activity.model: activity.succeeded_per_second + activity.failed_per_second
        for activity in overview.models or ()
    }
    queues = []
    for depth in overview.queues:
        rate = None if overview.models is None else finished.get(depth.model, 0.0)
        predicted_wait = 0.0 if not depth.waiting else depth.waiting / rate if rate else None
        if depth.paused is not None:
            predicted_wait = None
        queues.append(
            Queue(
                model=depth.model,
                queue=depth.queue,
                waiting=depth.waiting,
                by_priority=depth.by_priority,
                isolated=depth.isolated,
                delayed=depth.delayed,
                leased=depth.leased,
                oldest_seconds=overview.oldest_wait_seconds.get(depth.model),
                jobs_per_second=rate,
                predicted_wait_seconds=predicted_wait,
                paused=depth.paused,
            )
        )
    return QueuePage(queues=tuple(queues), dead_letters=overview.dead_letters)
