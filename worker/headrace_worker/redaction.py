"""Remove a job's values from a text about the job: an error's message, which often quotes the model's input.

`could not convert string to float: 'Ann'` becomes `could not convert string to float: '<value>'`. A message may
quote a value whole, cut, rounded, escaped, in another case, or inside a longer word. So the text is compared with
the values word by word and number by number, and a doubtful word is removed: a vague error can be traced, a leak
cannot be undone.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

#: The replacement of a removed value.
PLACEHOLDER = "<value>"

#: A word of at least 4 characters is removed if a value contains it. Any word is removed if it contains a word of
#: a value that has at least 3 characters.
_MIN_CONTAINED, _MIN_CONTAINING = 4, 3
#: Numbers of more digits and words of more letters are removed without a comparison.
_MAX_DIGITS, _MAX_LETTERS = 15, 40
#: The greatest relative difference between a value and a quoted number: half precision has about 3 digits.
_RELATIVE_TOLERANCE = 1e-3

_TOKEN = re.compile(
    r"(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+(?:\.[0-9a-fA-F]*)?(?:[pP][-+]?\d+)?"
    r"|(?:\d+(?:[,_]\d+)*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?))"
    r"|[^\W\d_]+|[^\x00-\x7f\s]"
)
_REPEATED_PLACEHOLDERS = re.compile(rf"[-+]?{PLACEHOLDER}(?:[^\w<>]{{0,3}}{PLACEHOLDER})+")


def redact(text: str, instances: Any) -> str:
    """Return the text with every word and number replaced that may come from the instances."""
    values = _Values(instances)
    for symbols in values.symbols:
        text = text.replace(symbols, PLACEHOLDER)
    redacted = _TOKEN.sub(lambda token: PLACEHOLDER if values.may_contain(token) else token[0], text)
    return _REPEATED_PLACEHOLDERS.sub(PLACEHOLDER, redacted)


class _Values:
    """The words and numbers of a job's instances."""

    def __init__(self, instances: Any) -> None:
        words: set[str] = set()
        magnitudes: set[float] = set()
        #: Texts without a letter or digit: `--`, `$$$`.
        self.symbols: list[str] = []
        for value in _scalars(instances):
            if not isinstance(value, str):
                magnitudes.update(_magnitude(value))
                continue
            has_tokens = False
            for spelling in _spellings(value):
                for token in _TOKEN.finditer(spelling):
                    has_tokens = True
                    words.add(token[0].casefold())
                    if token["number"]:
                        magnitudes.update(size for number in _readings(token[0]) for size in _magnitude(number))
            if not has_tokens and len(value.strip()) > 1:
                self.symbols.append(value)
        self._words = words
        self._all_words = "\n".join(words)
        self._magnitudes = sorted(magnitudes)

    def may_contain(self, match: re.Match[str]) -> bool:
        """Return True if a word or number of a text may come from a value."""
        token = match[0].casefold()
        if token in self._words or (len(token) >= _MIN_CONTAINED and token in self._all_words):
            return True
        if match["number"]:
            return any(self._is_near_a_value(number) for number in _readings(token))
        if len(token) > _MAX_LETTERS:
            return True
        return any(
            token[start:end] in self._words
            for start in range(len(token) - _MIN_CONTAINING + 1)
            for end in range(start + _MIN_CONTAINING, len(token) + 1)
        )

    def _is_near_a_value(self, number: str) -> bool:
        """Return True if a number may be a value, written in full, rounded or cut to fewer digits."""
        if "x" in number or sum(map(str.isdigit, number)) > _MAX_DIGITS:
            return True
        mantissa, _, exponent = number.partition("e")
        decimals = len(mantissa.partition(".")[2])
        for size in _magnitude(number):
            unit = 10.0 ** max(-300, min(300, int(exponent or 0) - decimals))
            tolerance = max(unit, _RELATIVE_TOLERANCE * size)
            first = bisect_left(self._magnitudes, size - tolerance)
            nearest = self._magnitudes[first : first + 2]
            return any(abs(size - value) < tolerance or size == value for value in nearest)
        return True


def _scalars(value: Any) -> Iterator[str | int | float]:
    """Yield the texts and numbers in instances. Names of features are not values: the contract is public."""
    stack = [value]
    while stack:
        match stack.pop():
            case dict() as named:
                stack += named.values()
            case list() | tuple() as values:
                stack += values
            case bool() | None:
                pass
            case (str() | int() | float()) as scalar:
                yield scalar


def _spellings(value: str) -> Iterator[str]:
    """Yield the forms in which messages quote a text: as it is, escaped, as bytes, and without accents."""
    yield value
    if not (value.isascii() and value.isprintable()):
        yield from (repr(value), ascii(value), json.dumps(value), repr(value.encode("utf-8", "replace")))
        decomposed = unicodedata.normalize("NFKD", value)
        yield from (unicodedata.normalize("NFC", value), decomposed)
        yield "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _readings(number: str) -> Iterator[str]:
    """Yield the numbers that `41,537` may mean: one with separators, or several without spaces."""
    number = number.lstrip("+-").casefold()
    yield number.replace(",", "").replace("_", "")
    if "," in number or "_" in number:
        yield from re.split("[,_]", number)


def _magnitude(number: str | float) -> Iterator[float]:
    """Yield the absolute value; nothing if it is not a finite number."""
    try:
        size = abs(float(number))
    except (ValueError, OverflowError):
        return
    if size < float("inf"):
        yield size
