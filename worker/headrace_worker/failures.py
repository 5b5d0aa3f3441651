"""Turn an exception, or attempts that are used up, into the Failure that is stored as a job's outcome.

The message of a model's error often quotes its input. Failures appear in logs, in Flower and in Sentry, where no
payload belongs, so whatever may come from the job's instances is removed from the message (`redaction`). A
traceback is stored without messages; its frames hold code, not values.

Only transient errors are retried: `headrace.errors.TransientError`, ConnectionError, TimeoutError, exceptions
derived from these, and the exceptions that the model's limits name in `retry_on`. Other errors would occur again.
"""

from __future__ import annotations

import site
import sysconfig
import textwrap
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from billiard.exceptions import SoftTimeLimitExceeded

from headrace.errors import InvalidInput, ModelError, TransientError, UnknownModel
from headrace.wire.attempts import ERROR_PREFIX, TIMEOUT, Attempt, select_counted
from headrace.wire.message import Instance, Job
from headrace.wire.outcome import Failure, Reason
from headrace_worker.manifest import Limits
from headrace_worker.redaction import redact

_TRANSIENT = (TransientError, ConnectionError, TimeoutError)
#: Never retried, even if a model's `retry_on` names them: the input would be as invalid, and as large, again.
_NEVER_RETRIED = (InvalidInput, MemoryError)

#: The messages of these errors name features and types, never values.
_OWN_ERRORS = (InvalidInput, ModelError)
#: Characters: the start of a longer message is stored, and the end of a longer traceback.
_MAX_MESSAGE, _MAX_TRACEBACK = 2_000, 8_000
#: Characters of a message in a line of the log.
_MAX_SUMMARY = 300


def make_failure(error: BaseException, job: Job) -> Failure:
    """Return the failure of a job whose run, or whose preparation, ended in this exception."""
    return Failure(
        job=job.id,
        reason=classify_error(error),
        error=type(error).__name__,
        module=type(error).__module__,
        message=describe_error(error, job.instances),
        traceback=None if isinstance(error, _OWN_ERRORS) else format_traceback(error),
    )


def describe_cause(error: BaseException, instances: Sequence[Instance]) -> str:
    """Return class, message and line of code of an exception in one line, without values of the instances."""
    return summarise(type(error).__name__, describe_error(error, instances), locate_error(error))


def summarise(error: str, message: str, code_line: str | None) -> str:
    """Return an exception in one line: `ValueError: columns are missing (pipeline.py:41 in transform)`.

    `message` must be without values of instances. A long one is cut between words.
    """
    message = textwrap.shorten(message, _MAX_SUMMARY, placeholder=" ...")
    return f"{error}{': ' if message else ''}{message}{f' ({code_line})' if code_line else ''}"


def describe_error(error: BaseException, instances: Sequence[Instance]) -> str:
    """Return the message of an exception without the values of the instances that it was raised for."""
    message = read_message(error)
    return message if isinstance(error, _OWN_ERRORS) else redact(message, list(instances))


def locate_error(error: BaseException) -> str | None:
    """Return the line of code that an exception comes from, as `pipeline.py:41 in transform`.

    It is the innermost line that belongs to no installed package: an error inside scikit-learn has its cause in
    the pipeline that called it. Without such a line, it is the innermost one of all. None without a traceback.
    """
    # Not `extract_tb`, which looks at each source file.
    lines = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [(code, line) for code, line in lines if not _is_installed(code.co_filename)]
    innermost = (own or lines)[-1:]
    return "".join(f"{Path(code.co_filename).name}:{line} in {code.co_name}" for code, line in innermost) or None


def _is_installed(file: str) -> bool:
    return file.startswith(("<", *_installed_folders()))


@cache
def _installed_folders() -> tuple[str, ...]:
    """Return the folders of Python itself, of installed packages, and of this package."""
    own_folder = str(Path(__file__).parent)
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages(), own_folder}
    return tuple(f"{folder}/" for folder in folders)


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


def find_retry_cause(error: BaseException, limits: Limits) -> str | None:
    """Return the cause of an attempt that ended in this error; None if the error is not retried."""
    if isinstance(error, SoftTimeLimitExceeded):
        return TIMEOUT
    if isinstance(error, _NEVER_RETRIED):
        return None
    if isinstance(error, _TRANSIENT) or any(_names(kind) & set(limits.retry_on) for kind in type(error).__mro__):
        return ERROR_PREFIX + type(error).__name__
    return None


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


def _names(kind: type) -> set[str]:
    return {kind.__name__, kind.__qualname__, f"{kind.__module__}.{kind.__qualname__}"}
