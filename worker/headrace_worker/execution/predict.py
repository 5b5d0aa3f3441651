"""A job's way through a pool process: admit, batch, predict, and when a batch fails, find the guilty job.

    claim ─> [admit ─> batches ─> predict] ─> settle ─> deliver

How the jobs got here (`claim`), whether a failed one runs again (`settle`) and how their outcomes leave
(`deliver`) are not known in this file.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from billiard.exceptions import SoftTimeLimitExceeded

from headrace.wire.message import Job
from headrace.wire.outcome import Outcome, Prediction, Success
from headrace_worker.execution.batching import Admitted, Batch, NotRunnableHere, admit, batches
from headrace_worker.execution.pool_process import interruptible, is_short_of_memory

if TYPE_CHECKING:
    from headrace_worker.models.registry import Registry


class FailedRun(msgspec.Struct, frozen=True):
    """A job's run ended in an error: its model's own, or its time was up."""

    admitted: Admitted
    error: BaseException


class BatchRun(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that was predicted, with the further calls that looked for a guilty job in it."""

    batch: Batch
    #: When it began and ended: this machine's monotonic clock, in seconds.
    started_at: float
    finished_at: float


def run(
    jobs: Sequence[Job], registry: Registry, now: datetime
) -> tuple[list[Outcome | FailedRun | NotRunnableHere], list[BatchRun]]:
    """One result for each job, in their order, and the batches that ran.

    What a job or a model does is its result, never raised. But MemoryError is, where one of several jobs has left
    the process no memory to find out which one it was.
    """
    results: dict[int, Outcome | FailedRun | NotRunnableHere] = {}
    places: dict[int, int] = {}
    ready: list[Admitted] = []
    ran: list[BatchRun] = []
    for place, job in enumerate(jobs):
        admitted = admit(job, registry, now)
        if isinstance(admitted, Admitted):
            places[id(admitted)] = place
            ready.append(admitted)
        else:
            results[place] = admitted
    try:
        with interruptible():
            for batch in batches(ready):
                began = time.monotonic()
                try:
                    for done, result in _run(batch, alone=len(jobs) == 1):
                        results[places[id(done)]] = result
                finally:
                    ran.append(BatchRun(batch=batch, started_at=began, finished_at=time.monotonic()))
    except SoftTimeLimitExceeded as error:
        # Of the whole claim: there is no time left to look for the one who took it.
        for admitted in ready:
            results.setdefault(places[id(admitted)], FailedRun(admitted, error))
    return [results[place] for place in range(len(jobs))], ran


def _run(batch: Batch, *, alone: bool) -> Iterator[tuple[Admitted, Success | FailedRun]]:
    """Predict a batch. One that fails is split until the guilty job stands alone.

    One guilty job among n costs at most 2 log2(n) + 1 calls. Raises SoftTimeLimitExceeded, and MemoryError.
    """
    try:
        predictions = _predict(batch)
    except SoftTimeLimitExceeded:
        raise
    except BaseException as error:  # a model may raise anything, KeyboardInterrupt too
        traceback.clear_frames(error.__traceback__)  # what the call has made is gone before the next is made
        if isinstance(error, MemoryError) and not alone and is_short_of_memory():
            raise
        if len(batch.jobs) == 1:
            yield batch.jobs[0], FailedRun(batch.jobs[0], error)
            return
    else:
        yield from _successes(batch, predictions)
        return
    for half in batch.halves():  # out of the error's reach: what it holds would be held all the while
        yield from _run(half, alone=alone)


def _successes(batch: Batch, predictions: list[Any]) -> Iterator[tuple[Admitted, Success]]:
    start = 0
    for admitted in batch.jobs:
        end = start + len(admitted.instances)
        prediction = Prediction(
            model=admitted.job.model, version=batch.model.manifest.version, predictions=predictions[start:end]
        )
        start = end
        yield admitted, Success(job=admitted.job.id, prediction=prediction)


def _predict(batch: Batch) -> list[Any]:
    """The predictions of a batch, in slices where a single job is larger than a batch may be."""
    instances, most = batch.instances, batch.model.manifest.limits.max_batch_instances
    predictions: list[Any] = []
    for start in range(0, len(instances), most):
        predictions += batch.model.predict(batch.method, instances[start : start + most])
    if len(predictions) != len(instances):
        raise RuntimeError(
            f"{batch.model.manifest.name}@{batch.model.manifest.version} gave {len(predictions)} predictions "
            f"for {len(instances)} instances: a model must give one for each"
        )
    return predictions
