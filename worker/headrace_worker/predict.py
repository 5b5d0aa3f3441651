"""A job's way through a pool process: admit, batch, predict, and when a batch fails, find the guilty job.

    claim ─> [admit ─> batches ─> predict] ─> deliver

How the jobs got here (`claim`) and how their outcomes leave (`deliver`) are not known in this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from billiard.exceptions import SoftTimeLimitExceeded

from headrace.envelope import Job
from headrace.errors import InvalidInput
from headrace.outcome import Outcome, Prediction, Success
from headrace_worker.batching import Admitted, Batch, admit, batches
from headrace_worker.failures import failure_of

if TYPE_CHECKING:
    from headrace_worker.models.registry import Registry

#: Told of every exception a model raised, with the job it was raised for. Bad input is no error of a model.
OnError = Callable[[BaseException, Admitted], None]


def run(jobs: Sequence[Job], registry: Registry, now: datetime, on_error: OnError | None = None) -> list[Outcome]:
    """One outcome for each job, in their order. Never raises for what a job or a model does."""
    outcomes: dict[int, Outcome] = {}
    places: dict[int, int] = {}
    ready: list[Admitted] = []
    for place, job in enumerate(jobs):
        admitted = admit(job, registry, now)
        if isinstance(admitted, Admitted):
            places[id(admitted)] = place
            ready.append(admitted)
        else:
            outcomes[place] = admitted
    for batch in batches(ready):
        for done, outcome in _run(batch, on_error):
            outcomes[places[id(done)]] = outcome
    return [outcomes[place] for place in range(len(jobs))]


def _run(batch: Batch, on_error: OnError | None) -> Iterator[tuple[Admitted, Outcome]]:
    """Predict a batch. One that fails is split until the guilty job stands alone.

    One guilty job among n costs at most 2 log2(n) + 1 calls.
    """
    try:
        predictions = _predict(batch)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a model may raise anything
        # Time ran out for the whole batch: there is none left to look for the one who took it.
        if len(batch.jobs) > 1 and not isinstance(error, SoftTimeLimitExceeded):
            for half in batch.halves():
                yield from _run(half, on_error)
            return
        for admitted in batch.jobs:
            if on_error and not isinstance(error, InvalidInput):
                on_error(error, admitted)
            yield admitted, failure_of(error, admitted.job)
        return
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
    instances, most = batch.instances, batch.model.manifest.limits.max_batch_rows
    predictions: list[Any] = []
    for start in range(0, len(instances), most):
        predictions += batch.model.predict(batch.method, instances[start : start + most])
    if len(predictions) != len(instances):
        raise RuntimeError(
            f"{batch.model.manifest.name}@{batch.model.manifest.version} gave {len(predictions)} predictions "
            f"for {len(instances)} instances: a model must give one for each"
        )
    return predictions
