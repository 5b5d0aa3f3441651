"""Whether a canary goes on: a decision over what was counted of it and of production."""

from __future__ import annotations

import msgspec

from headrace_worker.rollout.version_stats import VersionStats


class CanaryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a canary ends by itself."""

    #: Jobs of the canary before it is judged.
    jobs: int
    #: How much more of its jobs may fail than of production's: a part of them, from 0 to 1.
    failures: float
    #: How many times production's p99 its own may be.
    slower: float


def verdict(canary: VersionStats, production: VersionStats, limits: CanaryLimits) -> str | None:
    """Why the canary ends, for the history of the alias; None while it goes on.

    Production is compared with where it has run as many jobs; else a canary is judged by its failures alone.
    """
    if canary.jobs < limits.jobs:
        return None
    has_run = production.jobs >= limits.jobs
    usual = production.failure_rate if has_run else 0.0
    if canary.failure_rate > usual + limits.failures:
        beside = f", of production's {usual:.1%}" if has_run else ""
        return f"{canary.failure_rate:.1%} of its {canary.jobs:,} jobs failed{beside}"
    its, others = canary.seconds(0.99), production.seconds(0.99)
    if has_run and its is not None and others is not None and its > limits.slower * others:
        return f"its p99 is {1_000 * its:.3g} ms, production's {1_000 * others:.3g} ms"
    return None
