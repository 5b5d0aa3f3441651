"""The filter of dead letters: by id, model, queue, reason, error and age."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TypedDict, get_args

import msgspec

from headrace.clock import to_unix_ms
from headrace.dead_letters.groups import normalise_message
from headrace.errors import InvalidInput
from headrace.submit.options import parse_duration
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.outcome import Reason

_MILLISECOND = timedelta(milliseconds=1)


class DeadLetterFilter(TypedDict, total=False):
    """The conditions that a letter must meet, all of them. None is the same as no condition."""

    #: The ids of the letters.
    ids: Iterable[str] | None
    #: The name of the model; "" for letters without one.
    model: str | None
    #: The name of the queue: `predict.churn`, or `headrace.notify` for notices, `headrace.listen` for ended jobs.
    queue: str | None
    #: One of `headrace.outcome.Reason`.
    reason: str | None
    #: The name of the exception, `ValueError`, or with its module, `sklearn.exceptions.NotFittedError`.
    error: str | None
    #: The version that ran, or that the job names; "" for letters without one.
    failed_version: str | None
    #: The message of a group (`DeadLetterGroup.message`): with `#` in place of each number and id.
    message: str | None
    #: The least age, in seconds or as a timedelta; or the latest moment of death, with a time zone.
    older_than: float | timedelta | datetime | None
    #: The greatest age, in seconds or as a timedelta; or the earliest moment of death, with a time zone.
    newer_than: float | timedelta | datetime | None


class CheckedFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A filter whose conditions have been checked."""

    ids: tuple[str, ...] | None = None
    model: str | None = None
    queue: str | None = None
    reason: str | None = None
    error: str | None = None
    failed_version: str | None = None
    message: str | None = None
    older_than: timedelta | datetime | None = None
    newer_than: timedelta | datetime | None = None

    @property
    def matches_all(self) -> bool:
        """True for a filter without conditions."""
        return self == CheckedFilter()

    def time_range(self, now_ms: int) -> tuple[int, int]:
        """Return the first and last moment at which a matching letter died; all times are unix milliseconds.

        `now_ms` is the server's time. Letters that die later do not match: an operation does not meet a letter
        twice whose job it replayed and that failed again.
        """
        first = 0 if self.newer_than is None else _to_unix_ms(self.newer_than, now_ms)
        last = now_ms if self.older_than is None else _to_unix_ms(self.older_than, now_ms)
        return first, min(last, now_ms)

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether a letter meets all conditions but those on its id and its age."""
        return (
            (self.model is None or (letter.model or "") == self.model)
            and (self.queue is None or letter.queue == self.queue)
            and (self.reason is None or letter.reason == self.reason)
            and (self.error is None or self.error in {letter.error, f"{letter.module}.{letter.error}"})
            and (self.failed_version is None or (letter.version or "") == self.failed_version)
            and (self.message is None or normalise_message(letter) == self.message)
        )


def parse_filter(conditions: DeadLetterFilter) -> CheckedFilter:
    """Check a filter. Raises InvalidInput for a wrong value, and TypeError for an unknown condition."""
    for name in conditions:
        if name not in DeadLetterFilter.__annotations__:
            raise TypeError(
                f"dead letters have no condition {name!r}, but {', '.join(DeadLetterFilter.__annotations__)}"
            )
    reason = conditions.get("reason")
    if reason is not None and reason not in get_args(Reason):
        raise InvalidInput(f"`reason` is one of {', '.join(get_args(Reason))}")
    ids = conditions.get("ids")
    if isinstance(ids, str | bytes):
        raise InvalidInput("`ids` is a list of ids; for a single letter, pass a list of one id")
    return CheckedFilter(
        ids=None if ids is None else tuple(dict.fromkeys(ids)),
        model=conditions.get("model"),
        queue=conditions.get("queue"),
        reason=reason,
        error=conditions.get("error"),
        failed_version=conditions.get("failed_version"),
        message=conditions.get("message"),
        older_than=_parse_age("older_than", conditions.get("older_than")),
        newer_than=_parse_age("newer_than", conditions.get("newer_than")),
    )


def require_filter(conditions: DeadLetterFilter, *, every: bool) -> CheckedFilter:
    """Check a filter. Raises InvalidInput for a filter without conditions unless `every` is true."""
    checked = parse_filter(conditions)
    if checked.matches_all and not every:
        raise InvalidInput(
            "say which letters: by `ids`, `model`, `queue`, `reason`, `error` or age, or `every=True`"
        )
    return checked


def _parse_age(name: str, value: float | timedelta | datetime | None) -> timedelta | datetime | None:
    if not isinstance(value, datetime):
        return parse_duration(name, value)
    if value.tzinfo is None:
        raise InvalidInput(f"`{name}` needs a time zone, such as datetime.now(UTC)")
    return value


def _to_unix_ms(age: timedelta | datetime, now_ms: int) -> int:
    if isinstance(age, datetime):
        return to_unix_ms(age)
    return now_ms - age // _MILLISECOND
