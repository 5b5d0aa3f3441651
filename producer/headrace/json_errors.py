"""The position and the reason of a JSON error, for messages: `line 3, column 14: expected ':'`."""

from __future__ import annotations

import json
import re

_BYTE = re.compile(r"^JSON is malformed: (.*) \(byte (\d+)\)$")


def describe_json_error(text: bytes | str, error: Exception) -> str:
    """Return line, column and reason of an error that msgspec raised for this text. It quotes nothing of the text.

    The position is the one that Python's json module finds, as it is where the wrong value begins.
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as undecodable:
            before = undecodable.object[: undecodable.start].decode()
            return f"{_describe_position(before)}: it is not UTF-8"
    match = _BYTE.match(str(error))
    reason = match[1] if match else "it ends too early"
    return f"{_describe_position(text[: _find_error(text, match)])}: {reason}"


def _find_error(text: str, match: re.Match[str] | None) -> int:
    """Return the number of characters before the error."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        # The begin of a text that does not end tells nothing: its end is what is missing.
        return error.pos if match else len(text)
    except RecursionError:
        pass
    return len(text.encode()[: int(match[2])].decode(errors="ignore")) if match else len(text)


def _describe_position(before: str) -> str:
    """Return line and column after this text, both counted from 1."""
    return f"line {before.count(chr(10)) + 1}, column {len(before) - (before.rfind(chr(10)) + 1) + 1}"
