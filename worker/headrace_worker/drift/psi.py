"""The drift of a version's jobs from its profile, as the population stability index (PSI).

Rows are counted in Redis by the cells of the version's profile, in one string of 32-bit numbers for each hour. A
string expires when it is older than any query reads. The profile bounds its size.
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

#: Hours that a query may read at most.
MAX_HOURS = 48
#: The usual thresholds of the index: below the first a column is stable, from the second on it has drifted.
MOVED_PSI, DRIFTED_PSI = 0.1, 0.25
#: Rows below which there is no index.
MIN_ROWS = 50

Verdict = Literal["stable", "moved", "drifted", "too few rows"]


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """The drift of one column of a version: a feature, or a number of its predictions."""

    name: str
    column_kind: Literal["feature", "prediction"]
    #: Rows counted.
    rows: int
    #: The population stability index, 0 or more; None if there were too few rows.
    psi: float | None
    verdict: Verdict
    #: The share of rows without a value, from 0 to 1: in the profile, and in the rows counted.
    missing_in_profile: float
    missing: float


def add_commands(
    keys: Keys, model: str, version: str, now: datetime, cells: Mapping[int, int]
) -> tuple[tuple[Argument, ...], ...]:
    """Return the commands that count rows: `cells` are rows by the number of the cell, `now` the server's time."""
    key = keys.drift(model, version, _hour(now))
    additions: list[Argument] = [
        arg for cell, rows in cells.items() for arg in ("INCRBY", "u32", f"#{cell}", rows)
    ]
    return ("BITFIELD", key, "OVERFLOW", "SAT", *additions), ("EXPIRE", key, (MAX_HOURS + 1) * 3_600)


def measure_drift(
    client: redis.Redis, keys: Keys, manifest: Manifest, now: datetime, *, hours: int = 24
) -> tuple[ColumnDrift, ...] | None:
    """Measure the drift of each column of a version over the last hours, the current one included.

    Returns None if the version has no profile. Raises redis.RedisError.
    """
    if manifest.profile is None:
        return None
    last = _hour(now)
    reads = tuple(
        ("GET", keys.drift(manifest.name, manifest.version, hour)) for hour in range(last - hours + 1, last + 1)
    )
    replies = execute(client, Pipeline(reads))
    if error := next((reply for reply in replies if isinstance(reply, Exception)), None):
        raise error
    return compare_columns(manifest.profile, sum_hours(replies, manifest.profile.cells))


def sum_hours(stored: Sequence[Any], cells: int) -> list[int]:
    """Return the rows in each of `cells` cells, summed over the strings of the hours; None counts nothing."""
    sums = [0] * cells
    for counts in stored:
        complete = min(len(counts or b"") // 4, cells)
        for cell, rows in enumerate(struct.unpack_from(f">{complete}I", counts or b"")):
            sums[cell] += rows
    return sums


def compare_columns(profile: Profile, rows: Sequence[int]) -> tuple[ColumnDrift, ...]:
    """Compare the rows counted in each cell with the profile, column by column."""
    drifts, first = [], 0
    for number, column in enumerate(profile.columns):
        counted = rows[first : first + len(column.rows)]
        first += len(column.rows)
        drifts.append(_compare(column, counted, "feature" if number < len(profile.features) else "prediction"))
    return tuple(drifts)


def _compare(column: Column, counted: Sequence[int], column_kind: Literal["feature", "prediction"]) -> ColumnDrift:
    expected, total = column.rows, sum(counted)
    index = psi(expected, counted) if total >= MIN_ROWS else None
    return ColumnDrift(
        name=column.name,
        column_kind=column_kind,
        rows=total,
        psi=index,
        verdict=_verdict(index, chance_psi(expected, counted)),
        missing_in_profile=expected[-1] / sum(expected),
        missing=counted[-1] / total if total else 0.0,
    )


def psi(expected: Sequence[int], counted: Sequence[int]) -> float:
    """Return the population stability index of two counts by the same cells; an empty cell is half a row."""
    index = 0.0
    cells = [(before, after) for before, after in zip(expected, counted, strict=True) if before or after]
    total_before, total_after = (sum(max(0.5, cell[side]) for cell in cells) for side in (0, 1))
    for before, after in cells:
        share_before, share_after = max(0.5, before) / total_before, max(0.5, after) / total_after
        index += (share_after - share_before) * math.log(share_after / share_before)
    return index


def chance_psi(expected: Sequence[int], counted: Sequence[int]) -> float:
    """Return about the index of two samples of one distribution: with few rows they differ by chance."""
    cells = sum(1 for before, after in zip(expected, counted, strict=True) if before or after)
    return (cells - 1) * (1 / max(1, sum(expected)) + 1 / max(1, sum(counted)))


def _verdict(index: float | None, chance: float) -> Verdict:
    if index is None:
        return "too few rows"
    excess = index - chance
    return "drifted" if excess >= DRIFTED_PSI else "moved" if excess >= MOVED_PSI else "stable"


def _hour(now: datetime) -> int:
    return int(now.timestamp() // 3_600)
