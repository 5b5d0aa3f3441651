"""The sizes of the measurements: long ones for the documentation, short ones to test the suite."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """The size of each measurement; durations are in seconds."""

    #: Turns of every peer; the tables show medians over them.
    rounds: int
    #: Approximate duration of one run of jobs, of one measurement of submission, and of one of idle round trips.
    seconds: float
    #: Maximum number of round trips.
    round_trips: int
    #: Waiting jobs in the shallow and in the deep queue.
    depths: tuple[int, int]
    #: How long a depth is held before it is measured, and while it is. Redis doubles its table of keys soon after
    #: a deep queue is filled, as at each power of two; the warm-up is long enough for that.
    depth_warm_up: float
    depth_seconds: float
    #: Jobs that are enqueued before one and two pool processes are measured.
    pool_jobs: int
    #: Turns of each telemetry mode: a difference of a few percent needs many.
    telemetry_turns: int


LONG = Sizes(3, 4.0, 300, (1_000, 1_000_000), 10.0, 10.0, 4_000, 7)
SHORT = Sizes(1, 0.5, 30, (1_000, 20_000), 1.0, 1.0, 400, 1)
