"""Dead letters a page at a time, the newest first."""

from __future__ import annotations

import msgspec

from headrace.connection.commands import Command, Operation
from headrace.dead_letters.filter import CheckedFilter
from headrace.wire import dead_letter as letters
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys

#: Letters on a page, and letters looked at for one: few of many may be wanted.
PAGE, LOOKED_AT = 50, 5_000
_CHUNK = 500


class LetterPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some letters."""

    letters: tuple[DeadLetter, ...]
    #: Where the next page begins, counted from the newest letter; None where this is the last.
    next: int | None


def read_page(keys: Keys, wanted: CheckedFilter, start: int) -> Operation[LetterPage]:
    """The letters wanted from the one at `start` on, counted from the newest, 0. Ages are not looked at."""
    found: list[DeadLetter] = []
    at = start
    while at < start + LOOKED_AT:
        scored = yield Command(("ZREVRANGE", keys.dead_times, at, at + _CHUNK - 1, "WITHSCORES"))
        names = [bytes(name) for name in scored[::2]]
        if not names:
            return LetterPage(letters=tuple(found), next=None)
        lines = yield Command(("HMGET", keys.dead, *names))
        for name, died, line in zip(names, scored[1::2], lines, strict=True):
            at += 1
            one = letters.decode(name.decode(errors="replace"), line or b"", int(float(died)))
            if wanted.matches(one):
                found.append(one)
            if len(found) == PAGE:
                left = yield Command(("ZCARD", keys.dead_times))
                return LetterPage(letters=tuple(found), next=at if at < left else None)
        if len(names) < _CHUNK:
            return LetterPage(letters=tuple(found), next=None)
    return LetterPage(letters=tuple(found), next=at)


def read_letter(keys: Keys, name: str) -> Operation[DeadLetter | None]:
    """The letter of that id, without its message; None where there is none."""
    died = yield Command(("ZSCORE", keys.dead_times, name))
    line = yield Command(("HMGET", keys.dead, name))
    return None if died is None else letters.decode(name, line[0] or b"", int(float(died)))
