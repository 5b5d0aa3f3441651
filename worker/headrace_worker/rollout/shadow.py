"""Count what versions come to while one is tried beside another, and run the shadow.

Of a model with neither canary nor shadow nothing is counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import redis

from headrace.catalog.aliases import CANARY, SHADOW
from headrace.catalog.validation import check_instances, check_method
from headrace.connection.commands import Pipeline, execute
from headrace.wire.keys import Keys
from headrace.wire.outcome import Failure, Success
from headrace_worker.execution.batching import Batch
from headrace_worker.parity import TOLERANCE, max_difference
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.version_stats import VersionStats

if TYPE_CHECKING:
    from headrace_worker.execution.report import ClaimReport
    from headrace_worker.models.registry import Registry
    from headrace_worker.route import Route

log = logging.getLogger("headrace.models")

#: Reasons of failures that are the version's doing.
_ITS_OWN = {"permanent", "timeout", "crash", "attempts exhausted"}
#: Rows of a claim that a shadow predicts at the most.
_MOST_ROWS = 64
#: A shadow may take as much time as the version that answers, and this many seconds to begin with.
_ALLOWANCE = 1.0


class ShadowRunner:
    """Is told of each claim of this pool process. A shadow runs when its jobs have been answered."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        registry: Registry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._keys, self._registry, self._clock = client, keys, registry, clock
        #: Seconds a shadow may still take.
        self._allowance = _ALLOWANCE

    def on_claim_finished(self, report: ClaimReport) -> None:
        """A claim has ended. Raises redis.RedisError."""
        route = report.claim.route
        if route is None or report.published is None or not {CANARY, SHADOW} & route.aliases.keys():
            return
        counted = count(report)
        if shadow := route.aliases.get(SHADOW):
            self._shadow(report, route, shadow.version, counted.setdefault(shadow.version, VersionStats()))
        commands = [
            version_stats.add_command(self._keys, route.model, version, one).with_source
            for version, one in counted.items()
        ]
        if commands:
            execute(self._client, Pipeline(tuple(commands)))

    def _shadow(self, report: ClaimReport, route: Route, version: str, found: VersionStats) -> None:
        """Run the shadow beside production, as far as there is time, and count what it did.

        What a canary answered, or a version that a job named, is nothing to compare it with.
        """
        self._allowance += sum(batch_run.duration for batch_run in report.batch_runs)
        self._allowance = min(self._allowance, 10 * _ALLOWANCE)
        answered = {outcome.job: outcome for outcome in report.published or () if isinstance(outcome, Success)}
        rows = 0
        for batch in (ran.batch for ran in report.batch_runs):
            part = _answered(batch, answered, _MOST_ROWS - rows)
            if batch.model.manifest.version != route.default or route.default == version or not part.jobs:
                continue
            if self._allowance <= 0:
                found.skipped += 1
                continue
            rows += len(part.instances)
            began = self._clock()
            try:
                model = self._registry.get(route.model, version)
                method = check_method(model.contract, part.method)
                got = model.predict(method, check_instances(model.contract, part.instances))
                took = self._clock() - began
                expected = [
                    one for job in part.jobs for one in answered[job.claimed.job.id].prediction.predictions
                ]
                _compare(found, expected, got)
            except BaseException as error:  # noqa: BLE001  # a model may raise anything; its jobs have been answered
                found.failed += len(part.jobs)
                log.warning("the shadow %s@%s failed: %s", route.model, version, type(error).__name__)
            else:
                found.succeeded += len(part.jobs)
                found.add_duration(took, len(part.jobs))
            self._allowance -= self._clock() - began


def count(report: ClaimReport) -> dict[str, VersionStats]:
    """What each version that ran in a claim came to."""
    found: dict[str, VersionStats] = {}
    retried = {failed.admitted.claimed.job.id for failed in report.decisions.retried}
    for ran in report.batch_runs:
        version = ran.batch.model.manifest.version
        one = found.setdefault(version, VersionStats())
        good = bad = 0
        for job in ran.batch.jobs:
            outcome = report.decisions.outcomes.get(job.claimed.job.id)
            good += isinstance(outcome, Success)
            bad += job.claimed.job.id in retried or (isinstance(outcome, Failure) and outcome.reason in _ITS_OWN)
        one.succeeded += good
        one.failed += bad
        one.add_duration(ran.duration, good + bad)
    # Jobs whose attempts are used up end before they run again: their last attempt crashed the process.
    for result in report.parsed.finished:
        named, failure = result.claimed.job.version, result.value
        if named is not None and isinstance(failure, Failure) and failure.reason in _ITS_OWN:
            found.setdefault(named, VersionStats()).failed += 1
    return found


def _answered(batch: Batch, answered: dict[str, Success], rows: int) -> Batch:
    """The jobs of a batch that were answered, up to so many rows."""

    def within() -> Iterator[bool]:
        left = rows
        for job in batch.jobs:
            fits = job.claimed.job.id in answered and len(job.instances) <= left
            left -= len(job.instances) if fits else 0
            yield fits

    return Batch(batch.model, batch.method, [job for job, fits in zip(batch.jobs, within(), strict=True) if fits])


def _compare(found: VersionStats, expected: list[object], got: list[object]) -> None:
    for one, other in zip(expected, got, strict=True):
        difference = max_difference(one, other)
        found.compared += 1
        found.differing += difference is None or difference > TOLERANCE
        if difference is not None:
            found.difference_sum += difference
            found.largest_difference = max(found.largest_difference, difference)
