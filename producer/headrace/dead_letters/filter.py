"""Which dead letters are meant: by id, model, reason, error and age."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TypedDict, get_args

import msgspec

from headrace.errors import InvalidInput
from headrace.submit.options import parse_duration
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.outcome import Reason

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class DeadLetterFilter(TypedDict, total=False):
    """What letters must have in common; all of it that is given. None is as good as not given."""

    #: These, and no others.
    ids: Iterable[str] | None
    #: The name of the model.
    model: str | None
    #: One of `headrace.outcome.Reason`.
    reason: str | None
    #: The name of the exception, `ValueError`, or with its module, `sklearn.exceptions.NotFittedError`.
    error: str | None
    #: Died so long ago or longer: seconds, a timedelta, or the moment, with a time zone.
    older_than: float | timedelta | datetime | None
    #: Died so long ago or less.
    newer_than: float | timedelta | datetime | None


class CheckedFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A filter that has been checked."""

    ids: tuple[str, ...] | None = None
    model: str | None = None
    reason: str | None = None
    error: str | None = None
    older_than: timedelta | datetime | None = None
    newer_than: timedelta | datetime | None = None

    @property
    def matches_all(self) -> bool:
        """Whether it is met by every letter."""
        return self == CheckedFilter()

    def time_range(self, now_ms: int) -> tuple[int, int]:
        """The first and last moment at which a letter wanted may have died, at the server's moment `now_ms`.

        Letters that die from now on are never wanted: one that is replayed and dies again is not met twice.
        """
        first = 0 if self.newer_than is None else _moment(self.newer_than, now_ms)
        last = now_ms if self.older_than is None else _moment(self.older_than, now_ms)
        return first, min(last, now_ms)

    def matches(self, letter: DeadLetter) -> bool:
        """Whether a letter has what is wanted, its id and age aside."""
        return (
            (self.model is None or letter.model == self.model)
            and (self.reason is None or letter.reason == self.reason)
            and (self.error is None or self.error in {letter.error, f"{letter.module}.{letter.error}"})
        )


def parse_filter(given: DeadLetterFilter) -> CheckedFilter:
    """A filter as it is used. Raises InvalidInput, and TypeError for a condition there is not."""
    for name in given:
        if name not in DeadLetterFilter.__annotations__:
            raise TypeError(
                f"no letters are found by {name!r}, but by {', '.join(DeadLetterFilter.__annotations__)}"
            )
    reason = given.get("reason")
    if reason is not None and reason not in get_args(Reason):
        raise InvalidInput(f"`reason` is one of {', '.join(get_args(Reason))}")
    ids = given.get("ids")
    if isinstance(ids, str | bytes):
        raise InvalidInput("`ids` is a list of ids; for one letter give a list of one")
    return CheckedFilter(
        ids=None if ids is None else tuple(dict.fromkeys(ids)),
        model=given.get("model"),
        reason=reason,
        error=given.get("error"),
        older_than=_age("older_than", given.get("older_than")),
        newer_than=_age("newer_than", given.get("newer_than")),
    )


def _age(name: str, value: float | timedelta | datetime | None) -> timedelta | datetime | None:
    if not isinstance(value, datetime):
        return parse_duration(name, value)
    if value.tzinfo is None:
        raise InvalidInput(f"`{name}` needs a time zone, such as datetime.now(UTC)")
    return value


def _moment(age: timedelta | datetime, now_ms: int) -> int:
    if isinstance(age, datetime):
        return (age - _EPOCH) // _MILLISECOND
    return now_ms - age // _MILLISECOND


def from_unix_ms(ms: int) -> datetime:
    """A moment out of unix milliseconds, exact to them."""
    return _EPOCH + ms * _MILLISECOND


def require_filter(given: DeadLetterFilter, *, every: bool) -> CheckedFilter:
    """A filter that does not mean every letter by mistake."""
    sought = parse_filter(given)
    if sought.matches_all and not every:
        raise InvalidInput("say which letters: by `ids`, `model`, `reason`, `error` or age, or `every=True`")
    return sought
