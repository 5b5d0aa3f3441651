"""The present state of a run, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from redis.exceptions import ResponseError

from headrace.bulk.operations import is_over, read_run
from headrace.catalog.pauses import Pause
from headrace.connection.commands import Operation
from headrace.inspection.locate import is_not_permitted
from headrace.inspection.queues import measure_queues
from headrace.text import plural
from headrace.wire.bulk import RunProgress
from headrace.wire.keys import Keys
from headrace.wire.queues import bulk_queue_name


class RunExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a run, and the state of the queue that its jobs are in."""

    progress: RunProgress
    #: Jobs of all runs of the model that wait, and that workers have claimed; None for a run that has ended, and
    #: where the Redis user may not count them.
    waiting: int | None = None
    leased: int | None = None
    #: The pause of the model; None if it is not paused.
    pause: Pause | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what the run waits for."""
        return tuple(_write_notes(self))


def explain_run(keys: Keys, name: str) -> Operation[RunExplanation]:
    """Read what is known of a run, and what it waits for. Raises UnknownRun."""
    progress = yield from read_run(keys, name)
    if is_over(progress):
        return RunExplanation(progress=progress)
    try:
        (depth,) = yield from measure_queues(keys, [bulk_queue_name(progress.run.model)])
    except ResponseError as error:
        if not is_not_permitted(error):
            raise
        return RunExplanation(progress=progress)
    waiting = depth.waiting + depth.due + depth.delayed
    return RunExplanation(progress=progress, waiting=waiting, leased=depth.leased, pause=depth.paused)


def _write_notes(explanation: RunExplanation) -> Iterator[str]:
    progress, model = explanation.progress, explanation.progress.run.model
    if explanation.pause is not None:
        yield f"the model is {explanation.pause}; `headrace queues resume {model}` lets its runs go on"
    if explanation.waiting is None:
        return
    waiting, leased = explanation.waiting, explanation.leased or 0
    yield f"the queue {bulk_queue_name(model)} has {plural(waiting, 'waiting job')} and {leased:,} under lease"
    if leased or explanation.pause is not None:
        return
    if waiting:
        yield (
            f"no worker has claimed a job of it: does one serve {model!r} and take bulk jobs "
            "(HEADRACE_BULK_PROCESSES)? See `headrace doctor`"
        )
    else:
        yield (
            "no job of the run is left: it ends within a second, or its jobs were deleted; then "
            f"`headrace bulk resume {progress.run.name}` enqueues what is not done"
        )
