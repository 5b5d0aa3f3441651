"""The counting of jobs' instances and predictions by the cells of their version's profile.

A sample is enough to know a distribution: a few rows of each batch, a few hundred each second. A thread writes the
counts to Redis a second later, so no job waits for that.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import redis

from headrace.connection.commands import Pipeline, execute
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, Success
from headrace_worker.drift.psi import add_commands
from headrace_worker.profile import CellLocator

if TYPE_CHECKING:
    from headrace_worker.execution.batching import Batch
    from headrace_worker.execution.report import ClaimReport
    from headrace_worker.models.loader import LoadedModel

log = logging.getLogger("headrace.models")

#: Seconds after the first count until the counts are written.
_WRITE_SECONDS = 1.0
#: Rows that are counted of one batch at most, and between two writes.
_MAX_BATCH_ROWS, _MAX_ROWS = 32, 200


class DriftRecorder:
    """A listener that counts a sample of each claim. A version without a profile costs nothing."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._locators: dict[tuple[str, str], CellLocator] = {}
        self._lock = threading.Lock()
        #: Rows by cell, by model and version; and the rows that may still be counted before the next write.
        self._counts: dict[tuple[str, str], Counter[int]] = {}
        self._remaining = _MAX_ROWS

    def on_claim_finished(self, report: ClaimReport) -> None:
        """Count a sample of the claim's batches."""
        if report.published is None:
            return
        for batch in (batch_run.batch for batch_run in report.batch_runs):
            locator = self._locator(batch.model)
            if locator is None or batch.method != locator.method or self._remaining <= 0:
                continue
            self._count(batch, locator, report.decisions.outcomes, report.server_time(report.published_at))

    def _count(self, batch: Batch, locator: CellLocator, outcomes: Mapping[str, Outcome], now: datetime) -> None:
        sample = list(_sample_rows(batch, outcomes, min(_MAX_BATCH_ROWS, self._remaining)))
        cells: Counter[int] = Counter()
        for instance, prediction in sample:
            try:
                cells.update([*locator.locate_instance(instance), *locator.locate_prediction(prediction)])
            except (TypeError, LookupError):
                continue  # the prediction has another shape than those of the profile
        if not cells:
            return
        manifest = batch.model.manifest
        with self._lock:
            self._remaining -= len(sample)
            if not self._counts:
                timer = threading.Timer(_WRITE_SECONDS, self._write, args=[now])
                timer.daemon = True
                timer.start()
            self._counts.setdefault((manifest.name, manifest.version), Counter()).update(cells)

    def _locator(self, model: LoadedModel) -> CellLocator | None:
        manifest = model.manifest
        if manifest.profile is None:
            return None
        key = (manifest.name, manifest.version)
        if key not in self._locators:
            self._locators[key] = CellLocator(manifest.profile, manifest.contract)
        return self._locators[key]

    def _write(self, now: datetime) -> None:
        with self._lock:
            counts, self._counts, self._remaining = self._counts, {}, _MAX_ROWS
        commands = [
            command
            for (model, version), cells in counts.items()
            for command in add_commands(self._keys, model, version, now, cells)
        ]
        try:
            replies = execute(self._client, Pipeline(tuple(commands)))
            errors = [reply for reply in replies if isinstance(reply, Exception)]
        except redis.RedisError as error:
            errors = [error]
        if errors:
            log.warning("cannot write drift counts to Redis: %s; the counts of one second are lost", errors[0])


def _sample_rows(batch: Batch, outcomes: Mapping[str, Outcome], most_rows: int) -> Iterator[tuple[Any, Any]]:
    """Yield predicted instances of a batch with their predictions, evenly spread, at most `most_rows`."""
    answered = [
        (admitted.instances, outcome.prediction)
        for admitted in batch.jobs
        if isinstance(outcome := outcomes.get(admitted.claimed.job.id), Success)
    ]
    step = math.ceil(sum(len(instances) for instances, _ in answered) / most_rows) or 1
    first = 0
    for instances, prediction in answered:
        for index in range(first, len(instances), step):
            if not (prediction.errors and index in prediction.errors):
                yield instances[index], prediction.predictions[index]
        first = (first - len(instances)) % step
