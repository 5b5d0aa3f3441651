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
    #: Fleets of real workers, and the fleet of workers without pool processes: workers and models of each.
    fleets: tuple[tuple[int, int], ...]
    many: tuple[int, int]
    #: How long an idle fleet is counted, and the jobs that it then runs, one by one.
    idle_seconds: float
    fleet_jobs: int
    #: How long a fleet is left alone before it counts as idle.
    settle_seconds: float
    #: How long Redis is away, how often, and the workers that wait for it, each with a model of its own.
    outage_seconds: float
    outages: int
    outage_workers: int
    #: How long Redis is away in the measurement of a long outage.
    long_outage_seconds: float


LONG = Sizes(
    rounds=3,
    seconds=4.0,
    round_trips=300,
    depths=(1_000, 1_000_000),
    depth_warm_up=10.0,
    depth_seconds=10.0,
    pool_jobs=4_000,
    telemetry_turns=7,
    fleets=((8, 8), (16, 16)),
    many=(100, 50),
    idle_seconds=20.0,
    fleet_jobs=320,
    settle_seconds=5.0,
    outage_seconds=60.0,
    outages=3,
    outage_workers=4,
    long_outage_seconds=1200.0,
)
SHORT = Sizes(
    rounds=1,
    seconds=0.5,
    round_trips=30,
    depths=(1_000, 20_000),
    depth_warm_up=1.0,
    depth_seconds=1.0,
    pool_jobs=400,
    telemetry_turns=1,
    fleets=((2, 2),),
    many=(3, 3),
    idle_seconds=2.0,
    fleet_jobs=20,
    settle_seconds=1.0,
    outage_seconds=5.0,
    outages=1,
    outage_workers=1,
    long_outage_seconds=5.0,
)
