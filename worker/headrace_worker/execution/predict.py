"""Admit the jobs of a claim, batch them, predict, and when a batch fails, find the failing job.

    open ─> [admit ─> batches ─> predict] ─> settle ─> publish

This file does not know how jobs are claimed (`opening`), whether a failed job runs again (`settle`), or how
outcomes are published (`publish`).
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from billiard.exceptions import SoftTimeLimitExceeded

from headrace.catalog.aliases import is_version
from headrace.errors import TransientError
from headrace.wire.message import Job
from headrace.wire.outcome import Outcome, Prediction, Success
from headrace_worker.execution.batching import Batch, admit, form_batches
from headrace_worker.execution.claimed_job import Admitted, ClaimedJob, FailedRun, JobResult, NotRunnableHere
from headrace_worker.execution.columns import predict_columns
from headrace_worker.execution.pool_process import allow_interrupts, is_short_of_memory

if TYPE_CHECKING:
    from headrace_worker.models.registry import Registry


class BatchRun(msgspec.Struct, frozen=True, kw_only=True):
    """The run of a batch, with the further predict calls that searched it for a failing job."""

    batch: Batch
    #: This machine's monotonic clock, in seconds.
    started_at: float
    finished_at: float

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return self.finished_at - self.started_at


def run(jobs: Sequence[ClaimedJob], registry: Registry, now: datetime) -> tuple[list[JobResult], list[BatchRun]]:
    """Run the jobs of a claim. Return a result for each, in their order, and the batches that ran.

    An error of a job or a model is that job's result and is not raised. Only MemoryError is, if too little memory
    remains to find out which of several jobs used it.
    """
    #: By the id() of a ClaimedJob: two jobs of a claim may have the same job id.
    values: dict[int, Outcome | FailedRun | NotRunnableHere] = {}
    ready: list[Admitted] = []
    batch_runs: list[BatchRun] = []
    #: The versions that the admitted jobs name.
    versions: set[str] = set()
    for claimed in jobs:
        version = claimed.job.version
        is_first = version is not None and version not in versions
        if is_first and (problem := _check_versions(registry, claimed.job, versions)):
            values[id(claimed)] = problem
            continue
        admitted = admit(claimed, registry, now)
        if isinstance(admitted, Admitted):
            ready.append(admitted)
            if is_first:
                versions.add(str(version))
        else:
            values[id(claimed)] = admitted
    try:
        with allow_interrupts():
            for batch in form_batches(ready):
                started_at = time.monotonic()
                try:
                    for admitted, value in _run(batch, alone=len(jobs) == 1):
                        values[id(admitted.claimed)] = value
                finally:
                    batch_runs.append(BatchRun(batch=batch, started_at=started_at, finished_at=time.monotonic()))
    except SoftTimeLimitExceeded as error:
        # The limit is that of the whole claim: no time remains to find the job that used it up.
        for admitted in ready:
            values.setdefault(id(admitted.claimed), FailedRun(admitted, error))
    return _results(jobs, values, batch_runs), batch_runs


def _check_versions(registry: Registry, job: Job, versions: set[str]) -> NotRunnableHere | None:
    """Return the reason why a job waits for another claim: this one names as many versions as fit in memory."""
    numbers = {version for version in (*versions, job.version) if version is not None and is_version(version)}
    try:
        registry.check_versions(job.model, numbers)
    except TransientError as error:
        return NotRunnableHere(error)
    return None


def _results(
    jobs: Sequence[ClaimedJob],
    values: Mapping[int, Outcome | FailedRun | NotRunnableHere],
    batch_runs: Sequence[BatchRun],
) -> list[JobResult]:
    ran = {
        id(admitted.claimed): JobResult(admitted.claimed, values[id(admitted.claimed)], admitted, batch_run)
        for batch_run in batch_runs
        for admitted in batch_run.batch.jobs
    }
    return [ran.get(id(claimed)) or JobResult(claimed, values[id(claimed)]) for claimed in jobs]


def _run(batch: Batch, *, alone: bool) -> Iterator[tuple[Admitted, Success | FailedRun]]:
    """Predict a batch. Split a batch that fails until the failing job is alone.

    One failing job among n costs at most 2 log2(n) + 1 calls. Raises SoftTimeLimitExceeded, and MemoryError.
    """
    errors: dict[int, str] | None = None
    try:
        if batch.columns is None:
            predictions = _predict(batch)
        else:
            predictions, errors = predict_columns(batch.model, batch.method, batch.columns)
    except SoftTimeLimitExceeded:
        raise
    except BaseException as error:  # a model may raise anything, KeyboardInterrupt too
        traceback.clear_frames(error.__traceback__)  # free what this call made before the next call
        if isinstance(error, MemoryError) and not alone and is_short_of_memory():
            raise
        if len(batch.jobs) == 1:
            yield batch.jobs[0], FailedRun(batch.jobs[0], error)
            return
    else:
        yield from _successes(batch, predictions, errors)
        return
    for half in batch.halves():  # outside of the except block, which would keep the error and its frames alive
        yield from _run(half, alone=alone)


def _successes(
    batch: Batch, predictions: list[Any], errors: dict[int, str] | None
) -> Iterator[tuple[Admitted, Success]]:
    version, classes, start = batch.model.manifest.version, batch.model.classes_of(batch.method), 0
    for admitted in batch.jobs:
        job, end = admitted.claimed.job, start + len(admitted.instances)
        prediction = Prediction(
            model=job.model, version=version, predictions=predictions[start:end], classes=classes, errors=errors
        )
        start = end
        yield admitted, Success(job=job.id, prediction=prediction)


def _predict(batch: Batch) -> list[Any]:
    """Return the predictions of a batch. A single job larger than a batch is predicted in slices, if it may be."""
    instances, limits = batch.instances, batch.model.manifest.limits
    batch_size = len(instances) if limits.alone else limits.max_batch_instances
    predictions: list[Any] = []
    for start in range(0, len(instances), batch_size):
        predictions += batch.model.predict(batch.method, instances[start : start + batch_size])
    return predictions
