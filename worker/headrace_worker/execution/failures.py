"""From an exception, or from attempts that were used up, to the Failure a job ends in.

The message of a model's error often quotes what it was given. What may stem from the job's own instances is
struck out (see `redaction`): a failure is read in logs, in Flower and in Sentry, where no payload belongs.
Tracebacks are kept without their messages; they hold code, not values.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from billiard.exceptions import SoftTimeLimitExceeded

from headrace.errors import InvalidInput, ModelError, UnknownModel
from headrace.wire.attempts import ERROR_PREFIX, Attempt, select_counted
from headrace.wire.message import Job
from headrace.wire.outcome import Failure, Reason
from headrace_worker.execution.redaction import strike_out

#: An error message is kept up to this many characters, a traceback up to its last this many.
_MOST_MESSAGE, _MOST_TRACEBACK = 2_000, 8_000


def failure_of(error: BaseException, job: Job) -> Failure:
    """The failure an exception means for a job."""
    ours = isinstance(error, InvalidInput | ModelError)
    said = said_by(error)
    return Failure(
        job=job.id,
        reason=reason_of(error),
        error=type(error).__name__,
        module=type(error).__module__,
        # Our own messages name features and types, never values.
        message=said if ours else strike_out(said, job.instances),
        traceback=None if ours else frames_of(error),
    )


def given_up(job: Job, attempts: Sequence[Attempt], reason: Reason) -> Failure:
    """The failure of a job that is not run again, for what its attempts tell: what ran it cannot say any more."""
    tried = select_counted(attempts)
    causes = ", ".join(attempt.cause for attempt in tried)
    match reason:
        case "timeout":
            error, module, message = (
                "TimeLimitExceeded",
                "billiard.exceptions",
                "the job took more time than it has",
            )
        case "crash":
            error, module = "WorkerLostError", "billiard.exceptions"
            message = f"the process that ran the job was lost; it was tried {_times(tried)} ({causes})"
        case _:
            error, module = tried[-1].cause.removeprefix(ERROR_PREFIX), "headrace"
            message = f"the job was tried {_times(tried)} ({causes})"
    return Failure(job=job.id, reason=reason, error=error, module=module, message=message)


def _times(tried: Sequence[Attempt]) -> str:
    return "once" if len(tried) == 1 else f"{len(tried)} times"


def reason_of(error: BaseException) -> Reason:
    """The class of failure an exception belongs to."""
    match error:
        case UnknownModel():
            return "unknown model"
        case InvalidInput():
            return "bad input"
        case SoftTimeLimitExceeded():
            return "timeout"
        case _:
            return "permanent"


def said_by(error: BaseException) -> str:
    """The message of an exception, as much of it as is kept, in characters that JSON can hold."""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001  # the message is a model's code too
        return "(its message cannot be read)"
    if len(said) > _MOST_MESSAGE:
        # Cut between words: half a value is harder to tell from other text than a whole one.
        kept = said[:_MOST_MESSAGE]
        said = kept[: max(kept.rfind(" "), 0)] + " ..."
    return said.encode("utf-8", "replace").decode()


def frames_of(error: BaseException) -> str:
    """The traceback of an exception and of what caused it: frames and types, no messages."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{type(current).__qualname__}\n")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\nThe cause of:\n\n".join(reversed(parts))[-_MOST_TRACEBACK:]
