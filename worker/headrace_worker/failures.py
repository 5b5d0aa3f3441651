"""From an exception to the Failure a job ends in.

The message of a model's error often quotes what it was given (`could not convert string to float: 'Ann'`).
What it quotes out of the job's own instances is struck out: a failure is read in logs, in Flower and in
Sentry, where no payload belongs. Tracebacks are kept without their messages; they hold code, not values.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

from headrace.envelope import Job
from headrace.errors import InvalidInput, ModelError, UnknownModel
from headrace.outcome import Failure, Reason

#: Struck-out text: where a message repeated a value of the job.
STRUCK = "<value>"

#: An error message is kept up to this many characters, a traceback up to its last this many.
_MOST_MESSAGE, _MOST_TRACEBACK = 2_000, 8_000

# What a message may have taken from an instance: something quoted, a number, or a bare word.
_TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|[-+]?\d[\w.+-]*|\w+")


def failure_of(error: BaseException, job: Job) -> Failure:
    """The failure an exception means for a job."""
    ours = isinstance(error, InvalidInput | ModelError)
    return Failure(
        job=job.id,
        reason=reason_of(error),
        error=type(error).__name__,
        module=type(error).__module__,
        # Our own messages name features and types, never values.
        message=str(error)[:_MOST_MESSAGE] if ours else strike_out(str(error)[:_MOST_MESSAGE], job.instances),
        traceback=None if ours else frames_of(error),
    )


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


def strike_out(message: str, instances: Any) -> str:
    """The message with every value that stands in the instances replaced."""
    values = {text for value in _scalars(instances) for text in _spellings(value)}

    def replace(found: re.Match[str]) -> str:
        token = found[0]
        quoted = token[0] in "'\""
        inner = token[1:-1] if quoted else token.rstrip(".")
        if inner in values:
            return f"{token[0]}{STRUCK}{token[0]}" if quoted else STRUCK + token[len(inner) :]
        return token

    for value in sorted(values, key=len, reverse=True):
        # Texts of several words are no single token.
        if " " in value and len(value) > 3:
            message = message.replace(value, STRUCK)
    return _TOKEN.sub(replace, message)


def _scalars(value: Any) -> Iterator[str | int | float]:
    match value:
        case dict():
            for inner in value.values():
                yield from _scalars(inner)
        case list() | tuple():
            for inner in value:
                yield from _scalars(inner)
        case bool() | None:
            pass
        case str() | int() | float():
            yield value


def _spellings(value: str | float) -> tuple[str, ...]:
    # scikit-learn casts numbers before it complains of them: 3 may be quoted as 3.0.
    return (value,) if isinstance(value, str) else (str(value), str(float(value)), f"{value:g}")
