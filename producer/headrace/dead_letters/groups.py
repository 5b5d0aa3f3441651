"""Groups of dead letters with one cause: letters whose messages differ only in numbers and ids."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from headrace.wire.dead_letter import DeadLetter
from headrace.wire.outcome import Reason

#: Numbers and generated ids, which differ between the messages of one cause.
_VARIABLE = re.compile(
    r"\b(?:0x)?(?=[a-f-]*[0-9])[0-9a-f]{8}[0-9a-f-]*\b|\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE
)
_PLACEHOLDER = "#"
#: Characters of a message that are compared.
_COMPARED_CHARACTERS = 300
#: Groups with a message of their own. Beyond this number, letters are grouped by everything but their message.
_MAX_GROUPS = 10_000

_GroupKey = tuple[str | None, str | None, Reason, str, str]


class DeadLetterGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Letters with the same model, version, reason and error, whose messages differ only in numbers and ids."""

    count: int
    model: str | None
    version: str | None
    reason: Reason
    error: str
    #: The common message, with `#` for each number and id; empty for a group of different messages (_MAX_GROUPS).
    message: str
    #: When the first and the last of them died, unix milliseconds.
    oldest_ms: int
    newest_ms: int
    #: The id of the newest letter.
    example: str


class DeadLetterGroups:
    """Counts letters by group; its memory does not grow with their number."""

    def __init__(self) -> None:
        #: Count, oldest and newest moment of each group.
        self._counts: dict[_GroupKey, list[int]] = {}
        self._examples: dict[_GroupKey, str] = {}

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Count letters."""
        for letter in letters:
            key = self._key(letter)
            counts = self._counts.setdefault(key, [0, letter.died_ms, letter.died_ms])
            counts[0] += 1
            counts[1] = min(counts[1], letter.died_ms)
            if letter.died_ms >= counts[2]:
                counts[2] = letter.died_ms
                self._examples[key] = letter.id

    def _key(self, letter: DeadLetter) -> _GroupKey:
        key = (letter.model, letter.version, letter.reason, letter.error, normalise_message(letter))
        if key not in self._counts and len(self._counts) >= _MAX_GROUPS:
            return (*key[:4], "")
        return key

    def largest(self) -> tuple[DeadLetterGroup, ...]:
        """Return the groups, the largest first; among equal ones the newest first."""
        groups = (
            DeadLetterGroup(
                count=count,
                model=model,
                version=version,
                reason=reason,
                error=error,
                message=message,
                oldest_ms=oldest_ms,
                newest_ms=newest_ms,
                example=self._examples[(model, version, reason, error, message)],
            )
            for (model, version, reason, error, message), (count, oldest_ms, newest_ms) in self._counts.items()
        )
        return tuple(sorted(groups, key=lambda group: (-group.count, -group.newest_ms, group.example)))


def normalise_message(letter: DeadLetter) -> str:
    """Return the beginning of a letter's message with `#` in place of each number and id."""
    return _VARIABLE.sub(_PLACEHOLDER, letter.message[:_COMPARED_CHARACTERS])
