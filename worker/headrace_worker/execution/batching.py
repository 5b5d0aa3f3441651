"""Group a claim's jobs into batches: pure decisions, no model is run here.

A batch is what one `predict` call can take together: same version, same method, no more rows than the
version's limit. A job larger than that is a batch of its own, which `predict` runs in slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from headrace.catalog.validation import check_instances, check_method
from headrace.errors import ModelError, TransientError, UnknownModel
from headrace.wire.message import Instance, Job
from headrace.wire.outcome import Expired, Outcome
from headrace_worker.execution.failures import failure_of

if TYPE_CHECKING:
    from headrace_worker.models.loader import LoadedModel
    from headrace_worker.models.registry import Registry


class Admitted(msgspec.Struct, frozen=True):
    """A job that can run: its model is here and its instances fit the contract."""

    job: Job
    model: LoadedModel
    method: str
    instances: Sequence[Instance]


class NotRunnableHere(msgspec.Struct, frozen=True):
    """A job that cannot run here and now, and can elsewhere or later: it goes back, and that is no attempt."""

    job: Job
    error: Exception


class Batch(msgspec.Struct, frozen=True):
    """Jobs for one `predict` call."""

    model: LoadedModel
    method: str
    jobs: Sequence[Admitted]

    @property
    def instances(self) -> list[Instance]:
        """The instances of all its jobs, one after the other."""
        if len(self.jobs) == 1:
            return list(self.jobs[0].instances)
        return [instance for admitted in self.jobs for instance in admitted.instances]

    def halves(self) -> tuple[Batch, Batch]:
        """The batch in two, to find the job that fails it."""
        middle = len(self.jobs) // 2
        return (
            Batch(self.model, self.method, self.jobs[:middle]),
            Batch(self.model, self.method, self.jobs[middle:]),
        )


def admit(job: Job, registry: Registry, now: datetime) -> Admitted | NotRunnableHere | Outcome:
    """The job ready to run, or withheld, or the outcome it ends in without running. Raises redis.RedisError."""
    if job.expires is not None and job.expires <= now:
        return Expired(job=job.id)
    try:
        model = registry.get(job.model, job.version, job.id)
    except TransientError as error:
        return NotRunnableHere(job, error)
    except (UnknownModel, ModelError) as error:
        return (
            NotRunnableHere(job, error)
            if registry.is_runnable_elsewhere(job.model, job.version)
            else failure_of(error, job)
        )
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's outcome, not the worker's end
        return failure_of(error, job)
    try:
        method = check_method(model.contract, job.method)
        instances = check_instances(model.contract, job.instances)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's outcome, not the worker's end
        return failure_of(error, job)
    return Admitted(job, model, method, instances)


def batches(admitted: Iterable[Admitted]) -> list[Batch]:
    """Admitted jobs in batches, in the order of each batch's first job."""
    full: list[Batch] = []
    open_: dict[tuple[int, str], list[Admitted]] = {}
    rows: dict[tuple[int, str], int] = {}
    for one in admitted:
        key = (id(one.model), one.method)
        size = len(one.instances)
        if key in open_ and rows[key] + size > one.model.manifest.limits.max_batch_instances:
            jobs = open_.pop(key)
            full.append(Batch(one.model, one.method, jobs))
        if key not in open_:
            open_[key], rows[key] = [], 0
        open_[key].append(one)
        rows[key] += size
    return full + [Batch(jobs[0].model, jobs[0].method, jobs) for jobs in open_.values()]
