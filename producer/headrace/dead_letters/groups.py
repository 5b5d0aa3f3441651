"""Dead letters that are alike: one line for ten thousand with one cause."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from headrace.wire.dead_letter import DeadLetter
from headrace.wire.outcome import Reason

#: Numbers, and ids as programs make them: what differs between letters of one cause.
_STRUCK = re.compile(
    r"\b(?:0x)?(?=[a-f-]*[0-9])[0-9a-f]{8}[0-9a-f-]*\b|\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE
)
_STRUCK_AS = "#"
#: Characters of a message that are compared.
_COMPARED = 300
#: Storms told apart. In more than that, letters are alike by all but their message.
_MOST = 10_000

_Kind = tuple[str | None, str | None, Reason, str, str]


class DeadLetterGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Letters of one model, version, reason and error, whose messages differ in numbers and ids at most."""

    count: int
    model: str | None
    version: str | None
    reason: Reason
    error: str
    #: What they say, with `#` for each number and id; empty where they say too many different things.
    message: str
    #: When the first and the last of them died, unix milliseconds.
    oldest_ms: int
    newest_ms: int
    #: The id of the last.
    example: str


class DeadLetterGroups:
    """Letters sorted into storms one by one, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._kinds: dict[_Kind, list[int]] = {}
        self._examples: dict[_Kind, str] = {}

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Count letters in."""
        for letter in letters:
            kind = self._kind(letter)
            found = self._kinds.setdefault(kind, [0, letter.died_ms, letter.died_ms])
            found[0] += 1
            found[1] = min(found[1], letter.died_ms)
            if letter.died_ms >= found[2]:
                found[2] = letter.died_ms
                self._examples[kind] = letter.id

    def _kind(self, letter: DeadLetter) -> _Kind:
        kind = (letter.model, letter.version, letter.reason, letter.error, normalise_message(letter))
        if kind not in self._kinds and len(self._kinds) >= _MOST:
            return (*kind[:4], "")
        return kind

    def largest(self) -> tuple[DeadLetterGroup, ...]:
        """The storms, the largest first, and of equals the newest."""
        storms = (
            DeadLetterGroup(
                count=count,
                model=kind[0],
                version=kind[1],
                reason=kind[2],
                error=kind[3],
                message=kind[4],
                oldest_ms=oldest,
                newest_ms=newest,
                example=self._examples[kind],
            )
            for kind, (count, oldest, newest) in self._kinds.items()
        )
        return tuple(sorted(storms, key=lambda storm: (-storm.count, -storm.newest_ms, storm.example)))


def normalise_message(letter: DeadLetter) -> str:
    """What a letter says, without the numbers and ids that tell it from others like it."""
    return _STRUCK.sub(_STRUCK_AS, letter.message[:_COMPARED])
