"""The judgement of canaries: every worker compares a canary with production, and ends one that fails or is slow.

The first worker to decide so removes the alias, in one atomic step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import msgspec
import redis

from headrace.catalog.aliases import CANARY, PRODUCTION, Alias, Aliases, move_alias
from headrace.catalog.changes import count_change_with
from headrace.connection.commands import Pipeline, execute
from headrace.wire.keys import Keys
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.version_stats import VersionStats

log = logging.getLogger("headrace.models")

#: Seconds between two checks of the canaries.
_CHECK_SECONDS = 2.0
#: The author of the change in the history of the alias.
BY = "headrace"


class CanaryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits beyond which a canary is ended."""

    #: Jobs the canary has run before it is judged.
    min_jobs: int
    #: The share of its jobs, from 0 to 1, that may fail in addition to production's share.
    max_extra_failures: float
    #: The factor by which its p99 may exceed production's.
    max_slowdown: float


def judge(canary: VersionStats, production: VersionStats, limits: CanaryLimits) -> str | None:
    """Decide whether a canary ends. Return the reason, for the history of the alias, or None if it continues.

    Production is compared only if it has run as many jobs; otherwise the canary is judged by its failures alone.
    """
    if canary.jobs < limits.min_jobs:
        return None
    comparable = production.jobs >= limits.min_jobs
    expected_rate = production.failure_rate if comparable else 0.0
    if canary.failure_rate > expected_rate + limits.max_extra_failures:
        comparison = f", {expected_rate:.1%} of production's" if comparable else ""
        return f"{canary.failure_rate:.1%} of its {canary.jobs:,} jobs failed{comparison}"
    p99, production_p99 = canary.quantile_seconds(0.99), production.quantile_seconds(0.99)
    if not comparable or p99 is None or production_p99 is None:
        return None
    if p99 > limits.max_slowdown * production_p99:
        return f"its p99 is {1_000 * p99:.3g} ms, production's {1_000 * production_p99:.3g} ms"
    return None


class CanaryJudge:
    """The judge of the canaries of one worker's models. `connect` returns the connection to Redis."""

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        keys: Keys,
        limits: CanaryLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect, self._keys, self._limits, self._clock = connect, keys, limits, clock
        self._checked_at = 0.0

    def check(self, aliases_by_model: Mapping[str, Aliases]) -> None:
        """Judge the canaries among these aliases, at most every few seconds. Raises redis.RedisError."""
        if self._clock() - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = self._clock()
        for model, model_aliases in aliases_by_model.items():
            canary, production = model_aliases.by_name.get(CANARY), model_aliases.by_name.get(PRODUCTION)
            if canary is None or canary == production:
                continue
            versions = [alias.version for alias in (canary, production) if alias is not None]
            reads = tuple(version_stats.read_command(self._keys, model, version).args for version in versions)
            names = [f"{model}@{version}" for version in versions]
            replies = execute(self._connect(), Pipeline(reads))
            # A reply of another type than a hash is logged, and has no jobs.
            canary_stats, *others = map(version_stats.decode_stats, names, replies)
            production_stats = others[0] if others else VersionStats()
            if reason := judge(canary_stats, production_stats, self._limits):
                self._end(model, canary, reason)

    def _end(self, model: str, canary: Alias, reason: str) -> None:
        removal = move_alias(self._keys, model, CANARY, canary, None, by=BY, reason=reason, rollback=True)
        if execute(self._connect(), removal):
            count_change_with(self._connect(), self._keys)
            log.error("ended the canary %s@%s and removed its alias: %s", model, canary.version, reason)
