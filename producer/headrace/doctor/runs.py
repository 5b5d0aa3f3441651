"""Checks that every bulk run makes progress. `read_open_runs` reads them; `check_runs` is a pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from redis.exceptions import ResponseError

from headrace.bulk import list_runs
from headrace.connection.commands import Operation
from headrace.doctor.finding import Finding
from headrace.inspection.queues import QueueDepth
from headrace.inspection.run_pace import measure_pace
from headrace.text import format_duration, plural
from headrace.wire.bulk import FINAL_STATES, RunProgress
from headrace.wire.keys import Keys

#: Runs that are looked at, the newest first.
_RUNS_READ = 100
#: Seconds without progress after which a run stands still.
_IDLE_SECONDS = 60.0


def read_open_runs(keys: Keys) -> Operation[tuple[RunProgress, ...]]:
    """Read the bulk runs that have not ended; none where this user may not read them."""
    try:
        runs = yield from list_runs(keys, limit=_RUNS_READ)
    except ResponseError:
        return ()
    return tuple(progress for progress in runs if progress.state not in FINAL_STATES)


def check_runs(runs: Sequence[RunProgress], queues: Mapping[str, QueueDepth], now_ms: int) -> Iterator[Finding]:
    """Yield a finding for each run that stands still. `queues` are the bulk queues by model.

    A run whose model is paused has a finding of its own, and so has one whose model no worker serves.
    """
    for progress in runs:
        queue = queues.get(progress.run.model)
        idle = measure_pace(progress, now_ms).idle_seconds or 0.0
        if queue is None or queue.paused is not None or idle < _IDLE_SECONDS or queue.leased:
            continue
        name, still = progress.run.name, f"{progress.state} without progress for {format_duration(1000 * idle)}"
        if jobs := queue.waiting + queue.due:
            yield Finding(
                severity="error",
                subject=f"bulk run {name}",
                actual=f"{still}, with {plural(jobs, 'job')} in {queue.queue} that no worker claims",
                expected="a worker that claims them",
                reason="workers may be started without this queue, or be busy with other bulk runs",
                fix=f"start `headrace worker` or `headrace worker --bulk` without -X {queue.queue}",
            )
        elif not queue.delayed:
            yield Finding(
                severity="error",
                subject=f"bulk run {name}",
                actual=f"{still}, with no job in {queue.queue}",
                expected="jobs for the chunks that are missing",
                reason="its jobs are lost: Redis was emptied or restored, or their list was deleted",
                fix=f"headrace bulk resume {name}",
            )
