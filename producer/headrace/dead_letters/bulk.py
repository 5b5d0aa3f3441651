"""Replays or purges the letters of a filter in steps, at a limited rate if there is one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from headrace.connection.commands import Operation
from headrace.dead_letters.scripts import LETTERS_PER_CALL, LetterResult
from headrace.dead_letters.search import DeadLetterCursor
from headrace.wire.dead_letter import DeadLetter

#: Steps in a second while a rate limits the operation.
_STEPS_PER_SECOND = 10


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """The letters that a replay or purge has handled so far; for a dry run, those it would handle."""

    #: Letters replayed or purged.
    done: int = 0
    #: Letters that were replayed or purged before this operation reached them, by another client or by an attempt
    #: of this one whose reply was lost.
    already_handled: int = 0
    #: Letters left in place because their id has another outcome than this failure, or another job under way.
    id_in_use: int = 0
    #: Letters left in place because their bytes are not a job, which cannot be replayed.
    malformed: int = 0
    #: The ids of the filter without a letter.
    missing: tuple[str, ...] = ()


#: Handles the letters, or the first of them, and returns a result for each that it handled.
Handle = Callable[[Sequence[DeadLetter]], Operation[list[LetterResult]]]


class BulkOperation:
    """A replay or purge that handles a few letters a step, so that the caller can wait between steps.

    `rate` is in letters a second; None for no limit.
    """

    def __init__(self, cursor: DeadLetterCursor, handle: Handle, *, rate: float | None) -> None:
        self._cursor, self._handle, self._rate = cursor, handle, rate
        limit = LETTERS_PER_CALL if rate is None else max(1, int(rate / _STEPS_PER_SECOND))
        self._letters_per_step = min(LETTERS_PER_CALL, limit)
        self._unhandled: deque[DeadLetter] = deque()
        self._started: float | None = None
        self.result = BulkResult()

    @property
    def finished(self) -> bool:
        """True when all letters have been handled."""
        return self._cursor.exhausted and not self._unhandled

    def step(self, now: float) -> Operation[float]:
        """Handle the next letters; return the seconds to wait before the next step. `now` is a monotonic clock."""
        self._started = now if self._started is None else self._started
        if not self._unhandled:
            self._unhandled.extend((yield from self._cursor.next()))
        count = min(self._letters_per_step, len(self._unhandled))
        letters = [self._unhandled.popleft() for _ in range(count)]
        results = (yield from self._handle(letters)) if letters else []
        self._unhandled.extendleft(reversed(letters[len(results) :]))
        before = self.result
        self.result = BulkResult(
            done=before.done + results.count(LetterResult.DONE),
            already_handled=before.already_handled + results.count(LetterResult.ALREADY_HANDLED),
            id_in_use=before.id_in_use + results.count(LetterResult.ID_IN_USE),
            malformed=before.malformed + results.count(LetterResult.MALFORMED),
            missing=tuple(self._cursor.missing),
        )
        if self._rate is None or self.finished:
            return 0.0
        return max(0.0, self._started + self.result.done / self._rate - now)
