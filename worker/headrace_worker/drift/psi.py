"""How far what jobs hold has moved from what a version was packaged with: the population stability index (PSI).

Jobs are counted in Redis by the cells of the version's profile, in a string of 32-bit numbers for each hour. It
goes when it is older than anybody may ask for: what all this takes is known from the profile.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
import redis

from headrace.connection.commands import Argument, Pipeline, execute
from headrace.wire.keys import Keys
from headrace_worker.manifest import Manifest
from headrace_worker.profile import Column, Profile

#: Hours that can be asked for.
MAX_HOURS = 48
#: What people who use the index go by: below the first nothing has changed, from the second on something has.
MOVED, DRIFTED = 0.1, 0.25
#: Rows below which nothing is said.
MIN_ROWS = 50

Verdict = Literal["stable", "moved", "drifted", "too few rows"]


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a version: a feature, or a number of its predictions."""

    name: str
    column_kind: Literal["feature", "prediction"]
    #: Rows counted.
    rows: int
    #: The population stability index, from 0 up; None where there were too few rows.
    psi: float | None
    verdict: Verdict
    #: The part of rows without a value, when packaged and now.
    missing_in_profile: float
    missing: float


def add_commands(
    keys: Keys, model: str, version: str, now: datetime, cells: Mapping[int, int]
) -> tuple[tuple[Argument, ...], ...]:
    """The commands that add rows to cells, by the numbers of these, at a moment of the server's clock."""
    key = keys.drift(model, version, _hour(now))
    adds: list[Argument] = [word for cell, rows in cells.items() for word in ("INCRBY", "u32", f"#{cell}", rows)]
    return ("BITFIELD", key, "OVERFLOW", "SAT", *adds), ("EXPIRE", key, (MAX_HOURS + 1) * 3_600)


def measure_drift(
    client: redis.Redis, keys: Keys, manifest: Manifest, now: datetime, *, hours: int = 24
) -> tuple[ColumnDrift, ...] | None:
    """Each column of a version, by the rows of so many hours, the one that runs included.

    None where the version has no profile. Raises redis.RedisError.
    """
    if manifest.profile is None:
        return None
    last = _hour(now)
    reads = tuple(
        ("GET", keys.drift(manifest.name, manifest.version, hour)) for hour in range(last - hours + 1, last + 1)
    )
    replies = execute(client, Pipeline(reads))
    if wrong := next((reply for reply in replies if isinstance(reply, Exception)), None):
        raise wrong
    return compare_columns(manifest.profile, sum_hours(replies, manifest.profile.cells))


def sum_hours(stored: Sequence[Any], cells: int) -> list[int]:
    """The rows in each cell, summed over what is stored of each hour; None is nothing."""
    sums = [0] * cells
    for raw in stored:
        there = min(len(raw or b"") // 4, cells)
        for cell, rows in enumerate(struct.unpack_from(f">{there}I", raw or b"")):
            sums[cell] += rows
    return sums


def compare_columns(profile: Profile, rows: Sequence[int]) -> tuple[ColumnDrift, ...]:
    """What the rows in each cell say of each column."""
    found, first = [], 0
    for place, column in enumerate(profile.columns):
        now = rows[first : first + len(column.rows)]
        first += len(column.rows)
        found.append(_compared(column, now, "feature" if place < len(profile.features) else "prediction"))
    return tuple(found)


def _compared(column: Column, now: Sequence[int], what: Literal["feature", "prediction"]) -> ColumnDrift:
    then, total = column.rows, sum(now)
    index = psi(then, now) if total >= MIN_ROWS else None
    return ColumnDrift(
        name=column.name,
        column_kind=what,
        rows=total,
        psi=index,
        verdict=_verdict(index, chance_psi(then, now)),
        missing_in_profile=then[-1] / sum(then),
        missing=now[-1] / total if total else 0.0,
    )


def psi(then: Sequence[int], now: Sequence[int]) -> float:
    """The population stability index of two counts by the same cells. An empty cell counts as half a row."""
    index = 0.0
    cells = [(one, other) for one, other in zip(then, now, strict=True) if one or other]
    thens, nows = (sum(max(0.5, pair[side]) for pair in cells) for side in (0, 1))
    for one, other in cells:
        before, after = max(0.5, one) / thens, max(0.5, other) / nows
        index += (after - before) * math.log(after / before)
    return index


def chance_psi(then: Sequence[int], now: Sequence[int]) -> float:
    """About the index that two samples of one distribution have: few rows are never quite alike."""
    cells = sum(1 for one, other in zip(then, now, strict=True) if one or other)
    return (cells - 1) * (1 / max(1, sum(then)) + 1 / max(1, sum(now)))


def _verdict(index: float | None, chance: float) -> Verdict:
    if index is None:
        return "too few rows"
    above = index - chance
    return "drifted" if above >= DRIFTED else "moved" if above >= MOVED else "stable"


def _hour(now: datetime) -> int:
    return int(now.timestamp() // 3_600)
