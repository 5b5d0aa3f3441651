"""The fields of a job's events: Celery's own, `model`, `version` and `runs`. Receivers ignore further fields.

A worker makes three events for each job. So they are structs, and those of a job that arrives are made with
positional arguments: with keywords that takes more than twice as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.text import plural
from headrace.wire.message import describe_job
from headrace.wire.outcome import BulkSuccess, Cancelled, ClassLabel, Expired, Failure, Outcome, Success
from headrace.wire.queues import TASK

#: The most labels of classes that an event names.
_MAX_LABELS = 10

#: The first fields of an event: `hostname`, `pid`, `utcoffset`, `timestamp` and `clock`.
Sender = tuple[str, int, int, float, int]


class TaskEvent(msgspec.Struct, tag_field="type", gc=False):
    """The fields of each event: those of its `Sender`, then those of its job.

    The version is the number of the one that runs or ran, None where none did.
    """

    hostname: str
    pid: int
    #: The hours to add to local time to get UTC, which is Celery's sign.
    utcoffset: int
    #: Unix time in seconds.
    timestamp: float
    clock: int
    uuid: str
    model: str | None
    version: str | None


class TaskReceived(TaskEvent, tag="task-received", gc=False):
    """A job arrived in a claim."""

    name: str
    args: str
    root_id: str
    #: Runs before this one, and with it.
    retries: int
    runs: int
    expires: str | None
    eta: None = None
    kwargs: str = "{}"
    parent_id: None = None
    #: Unix time in seconds; unset for a job that waited since its submission.
    waiting_since: float | msgspec.UnsetType = msgspec.UNSET
    queue: str | msgspec.UnsetType = msgspec.UNSET


class TaskStarted(TaskEvent, tag="task-started", gc=False):
    """A job started."""

    queue: str | msgspec.UnsetType = msgspec.UNSET


class TaskEnded(TaskEvent, kw_only=True, gc=False):
    """A job ended, or this run of it."""

    runs: int
    queue: str | msgspec.UnsetType = msgspec.UNSET


class TaskSucceeded(TaskEnded, tag="task-succeeded", kw_only=True, gc=False):
    """A job has its predictions. `runtime` is in seconds."""

    result: str
    runtime: float


class TaskFailed(TaskEnded, tag="task-failed", kw_only=True, gc=False):
    """A job failed for good. It has a name, as one that ended without running has no `task-received`."""

    name: str = TASK
    exception: str
    traceback: str
    reason: str
    runtime: float


class TaskRevoked(TaskEnded, tag="task-revoked", kw_only=True, gc=False):
    """A job was cancelled, or expired. Its name is as that of a failed job."""

    name: str = TASK
    terminated: bool = False
    signum: None = None
    expired: bool


class TaskRetried(TaskEnded, tag="task-retried", kw_only=True, gc=False):
    """A job failed and runs again."""

    exception: str
    traceback: str


def end_event(
    sender: Sender, outcome: Outcome, *, seconds: float, model: str | None, version: str | None, runs: int
) -> TaskEnded:
    """Return the event of a job's outcome, after a run of `seconds`."""
    match outcome:
        case Success(job=job, prediction=prediction):
            result = describe_job(prediction.model, prediction.version, len(prediction.predictions))
            if prediction.classes is not None:
                result += f", values of {_list_labels(prediction.classes)}"
            return TaskSucceeded(*sender, job, model, version, runs=runs, result=result, runtime=seconds)
        case BulkSuccess(job=job, receipt=receipt):
            result = f"{plural(receipt.rows, 'row')}, {receipt.failed:,} of them failed"
            return TaskSucceeded(*sender, job, model, version, runs=runs, result=result, runtime=seconds)
        case Failure(job=job):
            exception = f"{outcome.error}: {outcome.message}"
            return TaskFailed(
                *sender,
                job,
                model,
                version,
                runs=runs,
                exception=exception,
                traceback=outcome.traceback or exception,
                reason=outcome.reason,
                runtime=seconds,
            )
        case Cancelled(job=job) | Expired(job=job):
            expired = isinstance(outcome, Expired)
            return TaskRevoked(*sender, job, model, version, runs=runs, expired=expired)


def retry_event(
    sender: Sender, failure: Failure, *, model: str | None, version: str | None, runs: int
) -> TaskRetried:
    """Return the event of a job that is retried. `failure` describes the error of this attempt."""
    exception = f"{failure.error}: {failure.message}"
    traceback = failure.traceback or ""
    return TaskRetried(*sender, failure.job, model, version, runs=runs, exception=exception, traceback=traceback)


def _list_labels(labels: Sequence[ClassLabel]) -> str:
    listed = ", ".join(map(str, labels[:_MAX_LABELS]))
    return listed if len(labels) <= _MAX_LABELS else f"{listed} and {len(labels) - _MAX_LABELS} more"
