"""Deal with many dead letters in steps, at a rate where one is wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from headrace.connection.commands import Operation
from headrace.dead_letters.replay import LetterResult
from headrace.dead_letters.search import CHUNK, DeadLetterCursor
from headrace.wire.dead_letter import DeadLetter

#: Steps in a second, where there is a rate.
_STEPS = 10


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay or purge has done so far; of a dry run, what it would do."""

    #: Letters replayed or purged.
    done: int = 0
    #: Letters that were replayed or purged before their turn came: by somebody else, or by a try of ours whose
    #: reply was lost.
    already_handled: int = 0
    #: Letters whose id has another outcome than this failure, or another job under way: they stay.
    id_in_use: int = 0
    #: Letters of bytes that are no job, which cannot be replayed: they stay.
    malformed: int = 0
    #: The ids asked for of which there is no letter.
    missing: tuple[str, ...] = ()


#: Deals with some letters, or with the first of them; the fate of each it dealt with.
Deal = Callable[[Sequence[DeadLetter]], Operation[list[LetterResult]]]


class BulkOperation:
    """Letters dealt with a few at a time, so that there may be a pause between the steps."""

    def __init__(self, search: DeadLetterCursor, deal: Deal, *, rate: float | None) -> None:
        self._search, self._deal, self._rate = search, deal, rate
        self._chunk = CHUNK if rate is None else min(CHUNK, max(1, int(rate / _STEPS)))
        self._found: deque[DeadLetter] = deque()
        self._began: float | None = None
        self.result = BulkResult()

    @property
    def finished(self) -> bool:
        """Whether all letters have been dealt with."""
        return self._search.exhausted and not self._found

    def step(self, now: float) -> Operation[float]:
        """Deal with the next letters at that moment of a monotonic clock; seconds to wait before the next step."""
        self._began = now if self._began is None else self._began
        if not self._found:
            self._found.extend((yield from self._search.next()))
        some = [self._found.popleft() for _ in range(min(self._chunk, len(self._found)))]
        fates = (yield from self._deal(some)) if some else []
        self._found.extendleft(reversed(some[len(fates) :]))
        before = self.result
        self.result = BulkResult(
            done=before.done + fates.count(LetterResult.DONE),
            already_handled=before.already_handled + fates.count(LetterResult.ALREADY_HANDLED),
            id_in_use=before.id_in_use + fates.count(LetterResult.ID_IN_USE),
            malformed=before.malformed + fates.count(LetterResult.MALFORMED),
            missing=tuple(self._search.missing),
        )
        if self._rate is None or self.finished:
            return 0.0
        return max(0.0, self._began + self.result.done / self._rate - now)
