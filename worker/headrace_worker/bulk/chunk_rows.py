"""The number of rows of a chunk, so that a chunk takes about a second. The decisions are pure.

A chunk holds its process until its end, so it is not long; and each costs some 50 ms besides its rows, so it is
not short. The time of a row is that of an earlier run of the version, or that of its trial when it was packaged.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace_worker.manifest import Limits, Manifest

#: The time of a chunk, in milliseconds, and its largest share of the time limit of the model.
_TARGET_MS, _LIMIT_SHARE = 1000.0, 0.25
#: The milliseconds to read, check and write a row of no columns, and for each of its columns.
_ROW_MS, _COLUMN_MS = 0.001, 0.00025
#: The milliseconds to predict a row, where no trial says it.
_DEFAULT_MS = 0.05
_MIN_ROWS, _MAX_ROWS = 100, 1_000_000


def estimate_row_ms(manifest: Manifest, columns: int) -> float:
    """Return the milliseconds of a row from the trial of the version's runtime, for rows of so many columns."""
    trials = [trial for trial in manifest.trials if trial.runtime == manifest.runtime and trial.milliseconds]
    predicted = _per_row(trials[0].milliseconds) if trials else _DEFAULT_MS
    return predicted + _ROW_MS + _COLUMN_MS * columns


def choose_chunk_rows(row_ms: float, limits: Limits) -> int:
    """Return the rows of a chunk, if a row takes this many milliseconds. `limits` are those of the version."""
    seconds = [limit for limit in (limits.time_limit, limits.soft_time_limit) if limit is not None]
    target_ms = min([_TARGET_MS, *(1000 * _LIMIT_SHARE * limit for limit in seconds)])
    return int(min(max(target_ms / max(row_ms, 1e-9), _MIN_ROWS), _MAX_ROWS))


def _per_row(milliseconds: Mapping[int, float]) -> float:
    rows = max(milliseconds)
    return milliseconds[rows] / max(rows, 1)
