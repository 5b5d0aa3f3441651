"""The pace of a bulk run: the share that is done, rows a second, and the time that is left. No I/O."""

from __future__ import annotations

import msgspec

from headrace.wire.bulk import RunProgress

#: The states in which the rows of a run are read.
_READING = ("planning", "running")


class RunPace(msgspec.Struct, frozen=True, kw_only=True):
    """The pace of a run at one moment."""

    #: The share of the rows that was read, from 0 to 1; of the chunks, if the rows are not counted beforehand.
    #: None before the run is planned.
    share: float | None = None
    #: Rows read a second since the run was started; None before the first.
    rows_per_second: float | None = None
    #: Seconds until the last row is read, at this pace; None if it is unknown, and once the run reads no more.
    remaining_seconds: float | None = None
    #: Seconds since the last sign of progress of a run that has not ended; None afterwards.
    idle_seconds: float | None = None


def measure_pace(progress: RunProgress, now_ms: int) -> RunPace:
    """Return the pace of a run. `now_ms` is the server's time, unix milliseconds."""
    share = _share_done(progress)
    started_ms = progress.started_ms
    last_ms = now_ms if progress.ended_ms is None else progress.ended_ms
    seconds = 0.0 if started_ms is None else max(0, last_ms - started_ms) / 1000
    remaining = None
    if progress.state in _READING and share and seconds:
        remaining = seconds * (1 - share) / share
    return RunPace(
        share=share,
        rows_per_second=progress.rows_done / seconds if seconds and progress.rows_done else None,
        remaining_seconds=remaining,
        idle_seconds=_idle_seconds(progress, now_ms),
    )


def _share_done(progress: RunProgress) -> float | None:
    if progress.state == "success":
        return 1.0
    if progress.rows:
        return min(1.0, progress.rows_done / progress.rows)
    if progress.chunks:
        return min(1.0, progress.chunks_done / progress.chunks)
    return None


def _idle_seconds(progress: RunProgress, now_ms: int) -> float | None:
    if progress.ended_ms is not None:
        return None
    moments = (progress.submitted_ms, progress.started_ms, progress.receipt_ms)
    return max(0, now_ms - max(moment for moment in moments if moment is not None)) / 1000
