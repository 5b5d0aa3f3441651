"""JSON as clients in Python write it: NaN, which JSON does not have, is read as null.

`json.dumps`, rapidjson and pandas write a missing value as NaN. Without this, a tensor or a table from them would
be refused for its first missing value.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from headrace_gateway.bodies import decode_body

T = TypeVar("T")
#: A string, which stays as it is, or a NaN outside of strings.
_STRING_OR_NAN = re.compile(rb'"(?:[^"\\]|\\.)*"|\bNaN\b', re.DOTALL)


def decode_json(text: bytes, decoder: msgspec.json.Decoder[T], fields: dict[str, tuple[str, ...]]) -> T:
    """Return the value of a JSON text; NaN is read as null. Raises a Problem (400), as `decode_body`."""
    if b"NaN" in text:
        try:
            return decoder.decode(text)
        except (msgspec.DecodeError, RecursionError, ValueError):
            text = _STRING_OR_NAN.sub(_replace_nan, text)
    return decode_body(text, decoder, fields)


def _replace_nan(token: re.Match[bytes]) -> bytes:
    return b"null" if token[0] == b"NaN" else token[0]
