"""Turn an exception, or attempts that are used up, into the Failure that is stored as a job's outcome.

The message of a model's error often quotes its input. Failures appear in logs, in Flower and in Sentry, where no
payload belongs, so whatever may come from the job's instances is removed from the message (`redaction`). A
traceback is stored without messages; its frames hold code, not values.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from billiard.exceptions import SoftTimeLimitExceeded

from headrace.errors import InvalidInput, ModelError, UnknownModel
from headrace.wire.attempts import ERROR_PREFIX, Attempt, select_counted
from headrace.wire.message import Job
from headrace.wire.outcome import Failure, Reason
from headrace_worker.execution.redaction import redact

#: Characters: the start of a longer message is stored, and the end of a longer traceback.
_MAX_MESSAGE, _MAX_TRACEBACK = 2_000, 8_000


def make_failure(error: BaseException, job: Job) -> Failure:
    """Return the failure of a job whose run, or whose preparation, ended in this exception."""
    # Headrace's own messages name features and types, never values.
    is_own_error = isinstance(error, InvalidInput | ModelError)
    message = read_message(error)
    return Failure(
        job=job.id,
        reason=classify_error(error),
        error=type(error).__name__,
        module=type(error).__module__,
        message=message if is_own_error else redact(message, job.instances),
        traceback=None if is_own_error else format_traceback(error),
    )


def make_failure_from_attempts(job: Job, attempts: Sequence[Attempt], reason: Reason) -> Failure:
    """Return the failure of a job that its attempts end: no error of its last run is known here."""
    counted = select_counted(attempts)
    causes = ", ".join(attempt.cause for attempt in counted)
    times = "once" if len(counted) == 1 else f"{len(counted)} times"
    match reason:
        case "timeout":
            error, module = "TimeLimitExceeded", "billiard.exceptions"
            message = "the job exceeded its time limit"
        case "crash":
            error, module = "WorkerLostError", "billiard.exceptions"
            message = f"the process that ran the job was lost; it was tried {times} ({causes})"
        case _:
            error, module = counted[-1].cause.removeprefix(ERROR_PREFIX), "headrace"
            message = f"the job was tried {times} ({causes})"
    return Failure(job=job.id, reason=reason, error=error, module=module, message=message)


def classify_error(error: BaseException) -> Reason:
    """Return the class of failures to which an exception belongs."""
    match error:
        case UnknownModel():
            return "unknown model"
        case InvalidInput():
            return "bad input"
        case SoftTimeLimitExceeded():
            return "timeout"
        case _:
            return "permanent"


def read_message(error: BaseException) -> str:
    """Return the message of an exception, at most _MAX_MESSAGE characters of it, as text that JSON can hold."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  # a model's own exception runs a model's code
        return "(its message cannot be read)"
    if len(message) > _MAX_MESSAGE:
        # Cut between words: a part of a value is harder to recognise, and to remove, than the whole value.
        start = message[:_MAX_MESSAGE]
        message = start[: max(start.rfind(" "), 0)] + " ..."
    return message.encode("utf-8", "replace").decode()


def format_traceback(error: BaseException) -> str:
    """Return the traceback of an exception and of its causes: frames and types, without messages."""
    tracebacks: list[str] = []
    visited: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in visited:
        visited.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__))
        tracebacks.append(f"Traceback (most recent call last):\n{frames}{type(current).__qualname__}\n")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\nThe cause of:\n\n".join(reversed(tracebacks))[-_MAX_TRACEBACK:]
