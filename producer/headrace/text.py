"""Texts for people: counts, sizes, durations and suggestions of names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: Most characters of a name that are compared, as a name from a message can be megabytes long.
_MAX_CHARACTERS = 64
#: Most names that a name is compared with; each comparison takes tens of microseconds.
_MAX_COMPARED = 64

#: The texts of a missing value: those of pandas.read_csv, which most likely read the training data. Source: the
#: pandas documentation, under `na_values`.
MISSING_TEXTS = {
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
}


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 job`, `1,000 jobs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def nearest_name(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the most similar of `names`, or None if none is similar. `cutoff` is a ratio of difflib's.

    Among many names, only some are compared: those of a similar length that begin or end alike.
    """
    name, candidates = name[:_MAX_CHARACTERS], list(names)
    if len(candidates) > _MAX_COMPARED:
        ends = {name[:1].lower(), name[-1:].lower()}
        candidates = [
            candidate
            for candidate in candidates
            if abs(len(candidate) - len(name)) <= 3 and ends & {candidate[:1].lower(), candidate[-1:].lower()}
        ][:_MAX_COMPARED]
    matches = difflib.get_close_matches(name, candidates, n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return `; did you mean 'churn'?`, or an empty string if no name is similar."""
    nearest = nearest_name(name, names, cutoff=cutoff)
    return f"; did you mean {nearest!r}?" if nearest else ""


def format_duration(ms: float) -> str:
    """Return a duration in milliseconds as people write it: `4.2 ms`, `1.3 s`, `2 min 5 s`, `3 h 20 min`."""
    if ms < 1000:
        return f"{ms:.3g} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    if ms < 3_600_000:
        return f"{ms // 60_000:.0f} min {ms % 60_000 // 1000:.0f} s"
    return f"{ms // 3_600_000:.0f} h {ms % 3_600_000 // 60_000:.0f} min"


def format_age(seconds: float) -> str:
    """Return an age in one unit, for tables: `0 s`, `45 s`, `3 m`, `2 h`, `5 d`."""
    seconds = max(0.0, seconds)
    for unit, length, longest in (("s", 1, 60), ("m", 60, 60), ("h", 3_600, 24)):
        if seconds < length * longest:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds // 86_400:,.0f} d"


def format_clock(seconds: float) -> str:
    """Return a duration as a clock shows it: `0:05`, `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def format_bytes(count: int) -> str:
    """Return a number of bytes as people write it: `48 MiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,} {unit}"
        count = round(count / 1024)
    return f"{count:,} GiB"
