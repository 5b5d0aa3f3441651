"""The records of one job of a claim: as it was claimed, as it was admitted, and its result.

    open_claim ─> ClaimedJob ─> admit ─> Admitted ─> predict ─> JobResult ─> settle, report

Each is made once. Every later step, and every listener, reads these records: none parses a message or a history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from headrace.wire.attempts import Attempt
    from headrace.wire.canvas import Canvas
    from headrace.wire.message import Instance, Job
    from headrace.wire.outcome import Outcome
    from headrace_worker.execution.predict import BatchRun
    from headrace_worker.models.loader import LoadedModel


class ClaimedJob(msgspec.Struct, frozen=True, gc=False):
    """A job of a claim, read from its queued message.

    `gc=False` is safe, and spares the collector one object a job: nothing in a job refers back to it.
    """

    job: Job
    #: The message as it was submitted, without its history.
    message: bytes
    #: The earlier attempts that the queued message carried, oldest first.
    attempts: tuple[Attempt, ...] = ()
    #: The reply channel of the client that waits for the outcome; None if none waits.
    reply_channel: str | None = None
    #: What the job is connected with in a Celery canvas; None for most jobs.
    canvas: Canvas | None = None


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """A job that can run: its model is loaded and its instances fit the model's contract."""

    claimed: ClaimedJob
    model: LoadedModel
    method: str
    #: The job's instances, converted to the types that the contract states.
    instances: Sequence[Instance]


class NotRunnableHere(msgspec.Struct, frozen=True):
    """The reason why a job cannot run on this worker now. The job is requeued, which is no attempt."""

    error: Exception
    #: True if another worker has the version: the job waits for that one, however often this one claims it.
    is_loaded_elsewhere: bool = False


class FailedRun(msgspec.Struct, frozen=True):
    """A job's run that ended in an error: its model raised, or its time limit passed."""

    admitted: Admitted
    error: BaseException


class JobResult(msgspec.Struct, frozen=True):
    """The result of a claimed job in its claim."""

    claimed: ClaimedJob
    value: Outcome | FailedRun | NotRunnableHere
    #: The job as it was run; None if it was not admitted.
    admitted: Admitted | None = None
    #: The predict call that it was part of; None if its batch did not run.
    batch_run: BatchRun | None = None
