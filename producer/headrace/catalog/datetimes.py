"""Datetimes and dates of instances: texts of ISO 8601 in its extended form, as `2026-01-02T03:04:05.5+01:00`.

A contract says whether a column's datetimes have a zone. One with a zone is an instant, one without is a reading
of a clock. Neither can stand in for the other, so nothing is guessed.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

_HOUR, _MINUTE = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_DATETIME = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}"
    rf"(?:[Tt ]{_HOUR}(?::{_MINUTE}(?::{_MINUTE}(?:[.,][0-9]+)?)?)?(?:[Zz]|[+-]{_HOUR}(?::?{_MINUTE})?)?)?"
)
_NANOSECONDS = re.compile(r"[.,][0-9]{6}([0-9]{1,3})")

# The usual forms, which are certainly valid. Others, such as the 29th of February, are parsed.
_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_TIME = rf"[T ]{_HOUR}:{_MINUTE}:{_MINUTE}(?:\.[0-9]{{1,9}})?"
#: Patterns of texts that need no parsing before they are sent.
PLAIN_DATE = rf"^[12][0-9]{{3}}-{_DAY}\Z"
PLAIN_DATETIME = rf"^[12][0-9]{{3}}-{_DAY}{_TIME}\Z"
PLAIN_INSTANT = rf"^[12][0-9]{{3}}-{_DAY}{_TIME}(?:Z|[+-]{_HOUR}:{_MINUTE})\Z"


def parse_datetime(text: str) -> datetime:
    """Return the datetime of a text, in UTC if it has a zone; a date is its midnight. Raises ValueError.

    A datetime of Python ends at microseconds: see `parse_nanoseconds`.
    """
    if _DATETIME.fullmatch(text) is None:
        raise ValueError("not a datetime of ISO 8601")
    moment = datetime.fromisoformat(text.upper())
    try:
        return moment if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("not a datetime of the years 1 to 9999") from None


def parse_nanoseconds(text: str) -> int:
    """Return the nanoseconds below the last whole microsecond of a datetime's text."""
    match = _NANOSECONDS.search(text)
    return int(match[1].ljust(3, "0")) if match else 0


def to_text(value: Any) -> Any:
    """Return the text of a date or datetime of Python, pandas or numpy; other values are returned as they are."""
    if isinstance(value, datetime):  # pandas' Timestamp is one too
        # An offset may have seconds, which ISO 8601 has not.
        return value.isoformat() if value.tzinfo is None else value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if type(value).__module__ == "numpy" and type(value).__name__ == "datetime64":
        return str(value)
    return value
