"""End canaries that fail or are slow: each worker looks, and the first to see it moves the alias, in one step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import redis

from headrace.catalog import aliases
from headrace.catalog.aliases import CANARY, PRODUCTION, Aliases
from headrace.connection.commands import Pipeline, execute
from headrace.wire.keys import Keys
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.judging import CanaryLimits, verdict
from headrace_worker.rollout.version_stats import VersionStats

log = logging.getLogger("headrace.models")

#: Seconds between two looks at a canary.
_LOOK_EVERY = 2.0
#: Who ended it, in the history.
BY = "headrace"


class Canaries:
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

    def look(self, of: Mapping[str, Aliases]) -> None:
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
            counted, *usual = map(version_stats.decoded, execute(self._connect(), Pipeline(reads)))
            if why := verdict(counted, usual[0] if usual else VersionStats(), self._limits):
                self._end(model, canary, why)

    def _end(self, model: str, canary: aliases.Alias, why: str) -> None:
        names, words = aliases.move_call(self._keys, model, CANARY, canary, None, by=BY, why=why, rollback=True)
        if execute(self._connect(), aliases.MOVE(names, words)):
            log.error("the canary %s@%s was ended: %s", model, canary.version, why)
