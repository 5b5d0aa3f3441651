"""Count what jobs hold, and what was predicted for them, by the cells of their version's profile (`models.drift`).

Of each batch a few rows, of each second a few hundred: a distribution is known by that, and no job waits for it.
What was counted is written a second later, by a thread.
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

#: Seconds until what was counted is written.
_WRITE_AFTER = 1.0
#: Rows that are counted of a batch, and between two writes, at the most.
_OF_A_BATCH, _BETWEEN_WRITES = 32, 200


class DriftRecorder:
    """Is told of each claim of this pool process. Versions without a profile cost nothing."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._cells: dict[tuple[str, str], CellLocator] = {}
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], Counter[int]] = {}
        self._left = _BETWEEN_WRITES

    def on_claim_finished(self, report: ClaimReport) -> None:
        """A claim has ended."""
        if report.published is None:
            return
        for batch in (ran.batch for ran in report.batch_runs):
            cells = self._cells_of(batch.model)
            if cells is None or batch.method != cells.method or self._left <= 0:
                continue
            self._count(batch, cells, report.decisions.outcomes, report.server_time(report.published_at))

    def _count(self, batch: Batch, cells: CellLocator, outcomes: Mapping[str, Outcome], now: datetime) -> None:
        rows = list(_rows(batch, outcomes))
        chosen = rows[:: math.ceil(len(rows) / min(_OF_A_BATCH, self._left)) or 1]
        found: Counter[int] = Counter()
        for instance, prediction in chosen:
            try:
                found.update([*cells.locate_instance(instance), *cells.locate_prediction(prediction)])
            except (TypeError, LookupError):
                continue  # a prediction of another form than the example's
        if not found:
            return
        manifest = batch.model.manifest
        with self._lock:
            self._left -= len(chosen)
            if not self._counts:
                timer = threading.Timer(_WRITE_AFTER, self._write, args=[now])
                timer.daemon = True
                timer.start()
            self._counts.setdefault((manifest.name, manifest.version), Counter()).update(found)

    def _cells_of(self, model: LoadedModel) -> CellLocator | None:
        manifest = model.manifest
        if manifest.profile is None:
            return None
        key = (manifest.name, manifest.version)
        if key not in self._cells:
            self._cells[key] = CellLocator(manifest.profile, manifest.contract)
        return self._cells[key]

    def _write(self, now: datetime) -> None:
        with self._lock:
            counts, self._counts, self._left = self._counts, {}, _BETWEEN_WRITES
        commands = [
            command
            for (model, version), cells in counts.items()
            for command in add_commands(self._keys, model, version, now, cells)
        ]
        try:
            replies = execute(self._client, Pipeline(tuple(commands)))
            wrong = [reply for reply in replies if isinstance(reply, Exception)]
        except redis.RedisError as error:
            wrong = [error]
        if wrong:
            log.warning("could not write what was counted for drift: %s", wrong[0])


def _rows(batch: Batch, outcomes: Mapping[str, Outcome]) -> Iterator[tuple[Any, Any]]:
    """Each instance that was predicted, with its prediction."""
    for admitted in batch.jobs:
        outcome = outcomes.get(admitted.claimed.job.id)
        if isinstance(outcome, Success):
            yield from zip(admitted.instances, outcome.prediction.predictions, strict=False)
