"""Group a claim's jobs into batches: pure decisions, no model is run here.

A batch holds the jobs that one `predict` call can take: same version, same method, and no more instances than the
version's limit. A larger job is a batch of its own, which `predict` runs in slices. So is a job in columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from headrace.catalog.validation import check_instances, check_method
from headrace.errors import ModelError, TransientError, UnknownModel
from headrace.wire.columns import Columns
from headrace.wire.message import Instance, Job
from headrace.wire.outcome import Expired, Outcome
from headrace_worker.execution.claimed_job import Admitted, ClaimedJob, NotRunnableHere
from headrace_worker.failures import make_failure

if TYPE_CHECKING:
    from headrace_worker.models.loader import LoadedModel
    from headrace_worker.models.registry import Registry


class Batch(msgspec.Struct, frozen=True):
    """Jobs for one `predict` call."""

    model: LoadedModel
    method: str
    jobs: Sequence[Admitted]

    @property
    def columns(self) -> Columns | None:
        """The instances of its only job, if they are in columns."""
        instances = self.jobs[0].instances
        return instances if isinstance(instances, Columns) else None

    @property
    def instances(self) -> list[Instance]:
        """The instances of all its jobs, one after the other."""
        if len(self.jobs) == 1:
            return list(self.jobs[0].instances)
        return [instance for admitted in self.jobs for instance in admitted.instances]

    @property
    def instance_count(self) -> int:
        """The number of instances of all its jobs."""
        return sum(len(admitted.instances) for admitted in self.jobs)

    def halves(self) -> tuple[Batch, Batch]:
        """Split the batch in two, to find the job that fails it."""
        middle = len(self.jobs) // 2
        return (
            Batch(self.model, self.method, self.jobs[:middle]),
            Batch(self.model, self.method, self.jobs[middle:]),
        )


def admit(claimed: ClaimedJob, registry: Registry, now: datetime) -> Admitted | NotRunnableHere | Outcome:
    """Prepare a job to run, or return the reason or the outcome that stops it. Raises redis.RedisError."""
    job = claimed.job
    model = find_model(job, registry, now)
    if isinstance(model, NotRunnableHere | Outcome):
        return model
    try:
        method = check_method(model.contract, job.method)
        # Columns are checked when they are predicted: each of their rows fails alone.
        is_table = isinstance(job.instances, Columns)
        instances = job.instances if is_table else check_instances(model.contract, job.instances)
    except Exception as error:  # noqa: BLE001  # as in `find_model`
        return make_failure(error, job)
    return Admitted(claimed, model, method, instances)


def find_model(job: Job, registry: Registry, now: datetime) -> LoadedModel | NotRunnableHere | Outcome:
    """Return the version that a job runs on, or what stops the job. Raises redis.RedisError."""
    if job.expires is not None and job.expires <= now:
        return Expired(job=job.id)
    try:
        return registry.get(job.model, job.version, job.id)
    except TransientError as error:
        return NotRunnableHere(error)
    except (UnknownModel, ModelError) as error:
        if registry.is_runnable_elsewhere(job.model, job.version):
            return NotRunnableHere(error, registry.is_loaded_elsewhere(job.model, job.version))
        return make_failure(error, job)
    except Exception as error:  # noqa: BLE001  # any error of one job's model is that job's failure, not the worker's
        return make_failure(error, job)


def form_batches(admitted_jobs: Iterable[Admitted]) -> list[Batch]:
    """Group admitted jobs into batches: full batches first, each list in the order of the batches' first jobs."""
    full: list[Batch] = []
    open_: dict[tuple[int, str], list[Admitted]] = {}
    sizes: dict[tuple[int, str], int] = {}
    for admitted in admitted_jobs:
        if admitted.model.manifest.limits.alone or isinstance(admitted.instances, Columns):
            full.append(Batch(admitted.model, admitted.method, [admitted]))
            continue
        key = (id(admitted.model), admitted.method)
        size = len(admitted.instances)
        if key in open_ and sizes[key] + size > admitted.model.manifest.limits.max_batch_instances:
            full.append(Batch(admitted.model, admitted.method, open_.pop(key)))
        if key not in open_:
            open_[key], sizes[key] = [], 0
        open_[key].append(admitted)
        sizes[key] += size
    return full + [Batch(jobs[0].model, jobs[0].method, jobs) for jobs in open_.values()]
