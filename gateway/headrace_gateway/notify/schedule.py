"""The decision after an attempt to deliver a notice: nothing more, another attempt later, or a dead letter.

    2xx               delivered
    410               a dead letter at once: the receiver wants no more
    429, 503 with Retry-After   another attempt when the receiver says so; it does not count
    anything else     another attempt after the next delay of the schedule, then a dead letter

Redirects are not followed: the operator named one address. An attempt that does not count is repeated for
`NOTICE_SECONDS` at most, as the outcome is kept no longer.
"""

from __future__ import annotations

import email.utils
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from headrace.wire.attempts import REPLAY
from headrace.wire.notice import NOTICE_SECONDS, Notice

#: Seconds before each attempt: the first is made at once.
SCHEDULE = (0.0, 5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0)
#: The share by which a delay is longer or shorter, so that what failed together is not repeated together.
JITTER = 0.2
#: Statuses whose Retry-After is obeyed, and the bounds of its delay in seconds.
_BUSY = frozenset((429, 503))
_MIN_REST, _MAX_REST = 1.0, 36_000.0
_GONE = 410


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of an endpoint to one request."""

    #: The HTTP status; None if there was no whole answer.
    status: int | None = None
    #: What went wrong without an answer: `timeout`, or the name of the error.
    error: str = ""
    #: The header Retry-After.
    retry_after: str | None = None

    @property
    def is_success(self) -> bool:
        """True for a status of 200 to 299."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def cause(self) -> str:
        """A word for what went wrong: `http-500`, `timeout`."""
        return f"http-{self.status}" if self.status is not None else self.error


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The decision on a notice after an attempt."""

    kind: Literal["done", "again", "dead"]
    #: For `again`: seconds until the next attempt, and False if the last one does not count.
    delay: float = 0.0
    counts: bool = True
    #: For `again`: True if the endpoint asked for a rest, which is for all of its notices.
    rests: bool = False


def decide(
    notice: Notice,
    answer: Answer,
    *,
    now_ms: int,
    schedule: Sequence[float] = SCHEDULE,
    draw: Callable[[float, float], float] = random.uniform,
) -> Decision:
    """Decide what becomes of a notice after an attempt.

    `now_ms` is unix milliseconds of the server's clock, `schedule` the seconds before each attempt, `draw` returns
    a random number between two.
    """
    if answer.is_success:
        return Decision(kind="done")
    if answer.status == _GONE:
        return Decision(kind="dead")
    rest = parse_retry_after(answer.retry_after, now_ms) if answer.status in _BUSY else None
    if rest is not None:
        rest *= draw(1.0, 1.0 + JITTER)  # never earlier than the endpoint said
        if now_ms + 1000 * rest > expiry_ms(notice):
            return Decision(kind="dead")
        return Decision(kind="again", delay=rest, counts=False, rests=True)
    following = notice.failed_attempts + 1
    if following >= len(schedule):
        return Decision(kind="dead")
    return Decision(kind="again", delay=schedule[following] * draw(1.0 - JITTER, 1.0 + JITTER))


def expiry_ms(notice: Notice) -> int:
    """Return the moment after which a notice is not attempted again, unix milliseconds."""
    replayed = [attempt.at_ms for attempt in notice.attempts if attempt.cause == REPLAY]
    return max((notice.content.at_ms, *replayed)) + 1000 * NOTICE_SECONDS


def parse_retry_after(text: str | None, now_ms: int) -> float | None:
    """Return the seconds in a Retry-After: a number of seconds, or a date. None if it is neither."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except (ValueError, TypeError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.fromtimestamp(now_ms / 1000, UTC)).total_seconds()
    return min(max(seconds, _MIN_REST), _MAX_REST)


def parse_schedule(text: str) -> tuple[float, ...]:
    """Return the seconds before each attempt from `0,5,300`. Raises ValueError."""
    delays = tuple(float(delay) for delay in text.split(","))
    if not all(0 <= delay < float("inf") for delay in delays):
        raise ValueError("a delay is a number of seconds, 0 or more")
    total = (1 + JITTER) * sum(delays)
    if total > NOTICE_SECONDS:
        raise ValueError(
            f"the delays and their jitter take {total:,.0f} s, longer than an outcome is kept "
            f"({NOTICE_SECONDS:,} s)"
        )
    return delays
