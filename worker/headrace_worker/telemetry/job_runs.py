"""The number of runs of a job, and the moment since which it waited: fields of its events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.wire.attempts import select_counted
from headrace.wire.bulk import BULK_TASK
from headrace.wire.queues import TASK

if TYPE_CHECKING:
    from headrace_worker.execution.claimed_job import ClaimedJob, JobResult


def task_name(claimed: ClaimedJob) -> str:
    """Return the name of the Celery task that the job is a message to."""
    return TASK if claimed.job.step is None else BULK_TASK


def count_earlier_runs(claimed: ClaimedJob) -> int:
    """Return the number of runs before this claim, since the submission or the last replay."""
    return len(select_counted(claimed.attempts)) if claimed.attempts else 0


def count_runs(result: JobResult) -> int:
    """Return the number of runs with that of this claim, in which the job may not have run."""
    has_run = result.batch_run is not None or (result.admitted is not None and result.claimed.job.step is not None)
    return count_earlier_runs(result.claimed) + has_run


def find_waiting_since(claimed: ClaimedJob) -> float | None:
    """Return the end of the last attempt, or the replay, or the moment the job was due: unix time in seconds.

    None for a job that waited since its submission, as most do.
    """
    moments = [claimed.attempts[-1].at_ms / 1000] if claimed.attempts else []
    if claimed.job.eta is not None:
        moments.append(claimed.job.eta.timestamp())
    return max(moments, default=None)
