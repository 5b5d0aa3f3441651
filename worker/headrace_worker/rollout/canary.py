"""End canaries that fail or are slow: each worker looks, and the first to see it moves the alias, in one step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import msgspec
import redis

from headrace.catalog.aliases import CANARY, MOVE, PRODUCTION, Alias, Aliases, move_arguments
from headrace.connection.commands import Pipeline, execute
from headrace.wire.keys import Keys
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.version_stats import VersionStats

log = logging.getLogger("headrace.models")

#: Seconds between two looks at a canary.
_LOOK_EVERY = 2.0
#: Who ended it, in the history.
BY = "headrace"


class CanaryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a canary ends by itself."""

    #: Jobs of the canary before it is judged.
    min_jobs: int
    #: How much more of its jobs may fail than of production's: a part of them, from 0 to 1.
    max_extra_failures: float
    #: How many times production's p99 its own may be.
    max_slowdown: float


def judge(canary: VersionStats, production: VersionStats, limits: CanaryLimits) -> str | None:
    """Why the canary ends, for the history of the alias; None while it goes on.

    Production is compared with where it has run as many jobs; else a canary is judged by its failures alone.
    """
    if canary.jobs < limits.min_jobs:
        return None
    has_run = production.jobs >= limits.min_jobs
    usual = production.failure_rate if has_run else 0.0
    if canary.failure_rate > usual + limits.max_extra_failures:
        beside = f", of production's {usual:.1%}" if has_run else ""
        return f"{canary.failure_rate:.1%} of its {canary.jobs:,} jobs failed{beside}"
    its, others = canary.quantile_seconds(0.99), production.quantile_seconds(0.99)
    if has_run and its is not None and others is not None and its > limits.max_slowdown * others:
        return f"its p99 is {1_000 * its:.3g} ms, production's {1_000 * others:.3g} ms"
    return None


class CanaryJudge:
    """The canaries of the models of one worker."""

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        keys: Keys,
        limits: CanaryLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect, self._keys, self._limits, self._clock = connect, keys, limits, clock
        self._looked = 0.0

    def check(self, of: Mapping[str, Aliases]) -> None:
        """Judge the canaries among these aliases, by model. Raises redis.RedisError."""
        if self._clock() - self._looked < _LOOK_EVERY:
            return
        self._looked = self._clock()
        for model, known in of.items():
            canary, production = known.by_name.get(CANARY), known.by_name.get(PRODUCTION)
            if canary is None or canary == production:
                continue
            versions = [alias.version for alias in (canary, production) if alias is not None]
            reads = tuple(version_stats.read_command(self._keys, model, version).args for version in versions)
            counted, *usual = map(version_stats.decode_stats, execute(self._connect(), Pipeline(reads)))
            if why := judge(counted, usual[0] if usual else VersionStats(), self._limits):
                self._end(model, canary, why)

    def _end(self, model: str, canary: Alias, why: str) -> None:
        names, words = move_arguments(self._keys, model, CANARY, canary, None, by=BY, reason=why, rollback=True)
        if execute(self._connect(), MOVE(names, words)):
            log.error("the canary %s@%s was ended: %s", model, canary.version, why)
