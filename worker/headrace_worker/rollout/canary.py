"""The judgement of canaries: every worker compares a canary with production, and ends one that fails or is slow.

The first worker to decide so removes the alias, in one atomic step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
import redis

from headrace.catalog.aliases import CANARY, PRODUCTION, Alias, Aliases, move_alias
from headrace.catalog.changes import count_change_with
from headrace.connection.commands import Pipeline, execute
from headrace.wire.keys import Keys
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.version_stats import VersionStats
from headrace_worker.settings import CanarySettings

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

    @classmethod
    def from_settings(cls, settings: CanarySettings) -> CanaryLimits:
        """Return the limits of the settings."""
        return cls(
            min_jobs=settings.canary_jobs,
            max_extra_failures=settings.canary_failures,
            max_slowdown=settings.canary_slower,
        )


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The judgement of a version that is tried beside production."""

    #: `too few jobs`, `good`, `failed more`, `slower` or, for a shadow, `differs`.
    kind: Literal["too few jobs", "good", "failed more", "slower", "differs"]
    #: The numbers behind it, as a phrase; "" where they say nothing more.
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}" if self.reason else self.kind

    @property
    def is_bad(self) -> bool:
        """True for a version that does worse than production."""
        return self.kind in {"failed more", "slower"}


def compare(tried: VersionStats, production: VersionStats, limits: CanaryLimits) -> Verdict:
    """Compare a version with production, and return the verdict.

    Production is compared only if it has run as many jobs; otherwise the version is judged by its failures alone.
    """
    if tried.jobs < limits.min_jobs:
        return Verdict(kind="too few jobs", reason=f"{tried.jobs:,} of {limits.min_jobs:,}")
    comparable = production.jobs >= limits.min_jobs
    expected_rate = production.failure_rate if comparable else 0.0
    if tried.failure_rate > expected_rate + limits.max_extra_failures:
        comparison = f", {expected_rate:.1%} of production's" if comparable else ""
        reason = f"{tried.failure_rate:.1%} of its {tried.jobs:,} jobs failed{comparison}"
        return Verdict(kind="failed more", reason=reason)
    if not comparable:
        idle = f"by its failures alone, as production ran {production.jobs:,} of {limits.min_jobs:,} jobs"
        return Verdict(kind="good", reason=idle)
    p99, production_p99 = tried.quantile_seconds(0.99), production.quantile_seconds(0.99)
    if p99 is not None and production_p99 is not None and p99 > limits.max_slowdown * production_p99:
        reason = f"its p99 is {1_000 * p99:.3g} ms, production's {1_000 * production_p99:.3g} ms"
        return Verdict(kind="slower", reason=reason)
    if tried.differing:
        reason = f"{tried.differing:,} of {tried.compared:,} predictions"
        return Verdict(kind="differs", reason=reason)
    return Verdict(kind="good")


def judge(canary: VersionStats, production: VersionStats, limits: CanaryLimits) -> str | None:
    """Decide whether a canary ends. Return the reason, for the history of the alias, or None if it continues."""
    verdict = compare(canary, production, limits)
    return verdict.reason if verdict.is_bad else None


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
