"""Strike a job's values out of a text about it: an error's message, which often quotes what the model was given.

`could not convert string to float: 'Ann'` becomes `could not convert string to float: '<value>'`. It goes word by
word and number by number, since a message may quote a value whole, cut, rounded, escaped, in another case, or as a
part of something else. In doubt a word is struck: an error that says less can be traced, a leak cannot be undone.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

#: What stands where a value stood.
STRUCK = "<value>"

#: A word this long is struck when it is a part of a value; and when a value's word of that length is a part of it.
_PART, _WHOLE = 4, 3
#: Numbers of more digits are struck whatever they are; so are words of more letters.
_MOST_DIGITS, _MOST_LETTERS = 15, 40
#: How far a quoted number may be from the value: half precision keeps about 3 digits.
_RELATIVE = 1e-3

_TOKEN = re.compile(
    r"(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+(?:\.[0-9a-fA-F]*)?(?:[pP][-+]?\d+)?"
    r"|(?:\d+(?:[,_]\d+)*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?))"
    r"|[^\W\d_]+|[^\x00-\x7f\s]"
)
_RUN = re.compile(rf"[-+]?{STRUCK}(?:[^\w<>]{{0,3}}{STRUCK})+")


def strike_out(text: str, instances: Any) -> str:
    """The text with everything replaced that may have been taken from the instances."""
    values = _Values(instances)
    for symbols in values.symbols:
        text = text.replace(symbols, STRUCK)
    struck = _TOKEN.sub(lambda found: STRUCK if values.may_hold(found) else found[0], text)
    return _RUN.sub(STRUCK, struck)


class _Values:
    """The words and numbers of a job's instances."""

    def __init__(self, instances: Any) -> None:
        words: set[str] = set()
        numbers: set[float] = set()
        #: Texts without a letter or digit: `--`, `$$$`.
        self.symbols: list[str] = []
        for value in _scalars(instances):
            if not isinstance(value, str):
                numbers.update(_size(value))
                continue
            tokens = 0
            for spelling in _spellings(value):
                for found in _TOKEN.finditer(spelling):
                    tokens += 1
                    words.add(found[0].casefold())
                    if found["number"]:
                        numbers.update(size for part in _parts(found[0]) for size in _size(part))
            if not tokens and len(value.strip()) > 1:
                self.symbols.append(value)
        self._words = words
        self._all = "\n".join(words)
        self._numbers = sorted(numbers)

    def may_hold(self, found: re.Match[str]) -> bool:
        """Whether a word or number of a text may stem from a value."""
        token = found[0].casefold()
        if token in self._words or (len(token) >= _PART and token in self._all):
            return True
        if found["number"]:
            return any(self._is_near(part) for part in _parts(token))
        if len(token) > _MOST_LETTERS:
            return True
        return any(
            token[start:end] in self._words
            for start in range(len(token) - _WHOLE + 1)
            for end in range(start + _WHOLE, len(token) + 1)
        )

    def _is_near(self, text: str) -> bool:
        """Whether a number may be one of the values, in full or rounded or cut to the digits it has."""
        if "x" in text or sum(map(str.isdigit, text)) > _MOST_DIGITS:
            return True
        mantissa, _, exponent = text.partition("e")
        decimals = len(mantissa.partition(".")[2])
        for size in _size(text):
            unit = 10.0 ** max(-300, min(300, int(exponent or 0) - decimals))
            reach = max(unit, _RELATIVE * size)
            at = bisect_left(self._numbers, size - reach)
            return any(abs(size - value) < reach or size == value for value in self._numbers[at : at + 2])
        return True


def _scalars(value: Any) -> Iterator[str | int | float]:
    """Texts and numbers in instances. A feature's name is none of them: the contract tells it to everyone."""
    stack = [value]
    while stack:
        match stack.pop():
            case dict() as named:
                stack += named.values()
            case list() | tuple() as several:
                stack += several
            case bool() | None:
                pass
            case (str() | int() | float()) as scalar:
                yield scalar


def _spellings(value: str) -> Iterator[str]:
    """A text as messages quote it: also escaped, as bytes, and without its accents."""
    yield value
    if not (value.isascii() and value.isprintable()):
        yield from (repr(value), ascii(value), json.dumps(value), repr(value.encode("utf-8", "replace")))
        plain = unicodedata.normalize("NFKD", value)
        yield from (unicodedata.normalize("NFC", value), plain)
        yield "".join(letter for letter in plain if not unicodedata.combining(letter))


def _parts(number: str) -> Iterator[str]:
    """The numbers that `41,537` may be: one with separators, or several without spaces."""
    number = number.lstrip("+-").casefold()
    yield number.replace(",", "").replace("_", "")
    if "," in number or "_" in number:
        yield from re.split("[,_]", number)


def _size(number: str | float) -> Iterator[float]:
    """The absolute value; nothing for what is no finite number."""
    try:
        size = abs(float(number))
    except (ValueError, OverflowError):
        return
    if size < float("inf"):
        yield size
