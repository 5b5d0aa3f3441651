"""The statistics of versions while a canary or a shadow is tried, and the runs of the shadow.

Models with neither canary nor shadow are not counted.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import redis

from headrace.catalog.aliases import CANARY, SHADOW
from headrace.catalog.validation import check_instances, check_method
from headrace.connection.commands import Pipeline, execute
from headrace.text import plural
from headrace.wire.keys import Keys
from headrace.wire.outcome import Failure, Success
from headrace_worker.execution.batching import Batch
from headrace_worker.parity import TOLERANCE, max_difference
from headrace_worker.rollout import version_stats
from headrace_worker.rollout.version_stats import VersionStats

if TYPE_CHECKING:
    from headrace_worker.execution.claimed_job import Admitted
    from headrace_worker.execution.report import ClaimReport
    from headrace_worker.models.registry import Registry
    from headrace_worker.route import Route

log = logging.getLogger("headrace.models")

#: The reasons of failures that the version causes.
_CAUSED_BY_VERSION = {"permanent", "timeout", "crash", "attempts exhausted"}
#: Instances of a claim that a shadow predicts at most.
_MAX_INSTANCES = 64
#: A shadow may use as much time as the version that serves. These are the seconds it has at the start, and the
#: seconds it can save up.
_INITIAL_SECONDS, _MAX_SAVED_SECONDS = 1.0, 10.0


class ShadowRunner:
    """A listener that counts the versions of a claim, and runs the shadow after the outcomes are published."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        registry: Registry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._keys, self._registry, self._clock = client, keys, registry, clock
        #: Seconds a shadow may use now.
        self._budget = _INITIAL_SECONDS

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Count the claim, run the shadow, and add the statistics to those in Redis. Raises redis.RedisError."""
        route = report.claim.route
        if route is None or report.published is None or not {CANARY, SHADOW} & route.aliases.keys():
            return
        by_version = count_versions(report)
        if shadow := route.aliases.get(SHADOW):
            self._run_shadow(report, route, shadow.version, by_version.setdefault(shadow.version, VersionStats()))
        commands = [
            version_stats.add_command(self._keys, route.model, version, stats)
            for version, stats in by_version.items()
        ]
        if commands:
            execute(self._client, Pipeline(tuple(commands)))

    def _run_shadow(self, report: ClaimReport, route: Route, version: str, stats: VersionStats) -> None:
        """Run the shadow on the jobs that production answered, while its time lasts, and count the results.

        Jobs that a canary answered, or that named a version, are not comparable.
        """
        self._budget += sum(batch_run.duration for batch_run in report.batch_runs)
        self._budget = min(self._budget, _MAX_SAVED_SECONDS)
        answers = {outcome.job: outcome for outcome in report.published or () if isinstance(outcome, Success)}
        remaining = _MAX_INSTANCES
        for batch in (batch_run.batch for batch_run in report.batch_runs):
            sample = _answered_jobs(batch, answers, remaining)
            if batch.model.manifest.version != route.default or route.default == version or not sample.jobs:
                continue
            if self._budget <= 0:
                stats.skipped += 1
                continue
            remaining -= len(sample.instances)
            started_at = self._clock()
            try:
                model = self._registry.get(route.model, version)
                method = check_method(model.contract, sample.method)
                predictions = model.predict(method, check_instances(model.contract, sample.instances))
                duration = self._clock() - started_at
                expected = [
                    prediction
                    for admitted in sample.jobs
                    for prediction in answers[admitted.claimed.job.id].prediction.predictions
                ]
                _compare(stats, expected, predictions)
            except BaseException as error:  # noqa: BLE001  # a model may raise anything; the jobs have their outcomes
                stats.failed += len(sample.jobs)
                log.warning(
                    "the shadow %s@%s failed on %s (%s); no outcome is affected",
                    route.model,
                    version,
                    plural(len(sample.jobs), "job"),
                    type(error).__name__,
                )
            else:
                stats.succeeded += len(sample.jobs)
                stats.add_duration(duration, len(sample.jobs))
            self._budget -= self._clock() - started_at


def count_versions(report: ClaimReport) -> dict[str, VersionStats]:
    """Return the statistics of each version that ran in a claim."""
    by_version: dict[str, VersionStats] = {}
    retried = {failed.admitted.claimed.job.id for failed in report.decisions.retried}
    for batch_run in report.batch_runs:
        version = batch_run.batch.model.manifest.version
        stats = by_version.setdefault(version, VersionStats())
        succeeded = failed = 0
        for admitted in batch_run.batch.jobs:
            job = admitted.claimed.job.id
            outcome = report.decisions.outcomes.get(job)
            succeeded += isinstance(outcome, Success)
            failed += job in retried or (isinstance(outcome, Failure) and outcome.reason in _CAUSED_BY_VERSION)
        stats.succeeded += succeeded
        stats.failed += failed
        stats.add_duration(batch_run.duration, succeeded + failed)
    # Jobs whose attempts are used up fail without running again: their last attempt crashed the process.
    for result in report.parsed.finished:
        pinned, failure = result.claimed.job.version, result.value
        if pinned is not None and isinstance(failure, Failure) and failure.reason in _CAUSED_BY_VERSION:
            by_version.setdefault(pinned, VersionStats()).failed += 1
    return by_version


def _answered_jobs(batch: Batch, answers: Mapping[str, Success], max_instances: int) -> Batch:
    """Return the jobs of a batch that have an answer, with at most `max_instances` instances together."""
    jobs: list[Admitted] = []
    for admitted in batch.jobs:
        if admitted.claimed.job.id in answers and len(admitted.instances) <= max_instances:
            jobs.append(admitted)
            max_instances -= len(admitted.instances)
    return Batch(batch.model, batch.method, jobs)


def _compare(stats: VersionStats, expected: list[object], predictions: list[object]) -> None:
    for production, shadow in zip(expected, predictions, strict=True):
        difference = max_difference(production, shadow)
        stats.compared += 1
        stats.differing += difference is None or not difference <= TOLERANCE  # NaN differs too
        if difference is not None and math.isfinite(difference):
            stats.difference_sum += difference
            stats.largest_difference = max(stats.largest_difference, difference)
