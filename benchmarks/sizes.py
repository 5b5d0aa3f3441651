"""How much is measured: the long form for the documentation, the short one to see that all is well."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """What a run takes; times are in seconds."""

    #: Every peer has its turn so often, one after the other; the tables show medians.
    rounds: int
    #: What one run of jobs, one measurement of submitting and one of idle round trips take, about.
    seconds: float
    #: Round trips at the most.
    round_trips: int
    #: Jobs waiting, at the least and at the most.
    depths: tuple[int, int]
    #: How long each depth is kept up before it is measured, and while it is. Filling the deep queue leaves Redis
    #: about to double its table of keys, which it does at each power of two: that is over before.
    depth_warm: float
    depth_seconds: float
    #: Jobs enqueued beforehand, for one pool process and for two.
    pool_jobs: int
    #: Turns of a worker that tells of its jobs, and of one that does not: what differs by some percent takes more.
    telling_turns: int


LONG = Sizes(3, 4.0, 300, (1_000, 1_000_000), 10.0, 10.0, 4_000, 7)
SHORT = Sizes(1, 0.5, 30, (1_000, 20_000), 1.0, 1.0, 400, 1)
