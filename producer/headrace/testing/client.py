"""`InMemoryClient`: the methods of `headrace.Client` without Redis; `headrace.testing` shows its use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from headrace.bulk.specification import make_run
from headrace.catalog.contract import Contract
from headrace.catalog.pauses import Pause, check_reason
from headrace.client.blocking.protocols import AnyJobHandle
from headrace.client.common import check_timeout, check_waits
from headrace.client.handlers import select_handlers
from headrace.client.listen_state import ListenState
from headrace.clock import utc_now
from headrace.errors import InvalidInput, JobConflict, QueueFull
from headrace.inspection.queues import QueueDepth
from headrace.results.purge import PurgeResult
from headrace.settings import Settings
from headrace.submit.enqueue import encode_instances_within
from headrace.submit.options import JobOptions, SubmitOptions, instances_from, iterate_instances, parse_options
from headrace.testing.dead_letters import InMemoryDeadLetters
from headrace.testing.job import InMemoryJob
from headrace.testing.listening import InMemoryListener, InMemoryListening
from headrace.testing.models import InMemoryModels, Model
from headrace.testing.runs import InMemoryRun, InMemoryRuns
from headrace.user import name_user_and_host
from headrace.wire.bulk import RunProgress
from headrace.wire.job_encoder import JobEncoder
from headrace.wire.limits import JobLimits
from headrace.wire.message import Instance, Job, new_id
from headrace.wire.names import check_job_id, split_version
from headrace.wire.outcome import (
    Cancelled,
    Failure,
    Outcome,
    Prediction,
    Status,
    Success,
    outcome_status,
)
from headrace.wire.queues import PRIORITY_STEPS, priority_index, queue_name

J = TypeVar("J", bound=AnyJobHandle)


class InMemoryClient:
    """A client whose models are functions, contracts, or packaged versions.

    `models` maps a model's name to its function (`Answer`); to a Contract, which predicts its first class, or 0,
    for every instance; or to a version from `headrace_worker.load_version`, which predicts as in a worker. The
    `Path` of a model store stands for the newest version in it. `contracts` are those of the models that are
    functions, and of further versions: instances are checked against them. The newest version serves.

    An exception of a function is the failure of the job. Jobs run when they are submitted; with `at_once=False`,
    when `run()` is called. Delays are ignored. `submitted` lists every job. A bulk run reads no file: it ends as a
    success of 0 rows.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        contracts: Iterable[Contract] = (),
        settings: Settings | None = None,
        at_once: bool = True,
    ) -> None:
        #: Every job, in the order of submission.
        self.submitted: list[Job] = []
        self._settings = settings or Settings()
        self._at_once = at_once
        #: Every accepted job by id, with the digest of its input.
        self._jobs: dict[str, tuple[Job, bytes]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._models = InMemoryModels(models, contracts)
        self._pauses: dict[str, Pause] = {}
        self._bulk_runs = InMemoryRuns(self._pauses, at_once=at_once)
        self._listening = InMemoryListening()
        #: As `Client.dead_letters`.
        self.dead_letters = InMemoryDeadLetters(self._replay)

    def submit(
        self,
        model: str,
        instance: Any = None,
        *,
        instances: Iterable[Any] | None = None,
        id: str | None = None,  # noqa: A002  # the word users know
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> InMemoryJob:
        """Submit a job; see `Client.submit`."""
        check_timeout(timeout)
        parsed = parse_options(model, options, utc_now())
        checked = self._models.check_instances(parsed, instances_from(instance, instances))
        return self._accept(parsed, [(check_job_id(id) if id is not None else new_id(), checked)])[0]

    def submit_many(
        self,
        model: str,
        instances: Iterable[Any],
        *,
        ids: Iterable[str] | None = None,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> list[InMemoryJob]:
        """Submit a job for each instance; see `Client.submit_many`.

        An iterator is read to its end before anything is enqueued.
        """
        check_timeout(timeout)
        parsed = parse_options(model, options, utc_now())
        unchecked = list(iterate_instances(instances))
        checked = self._models.check_instances(parsed, unchecked) if unchecked else []
        jobs = [new_id() for _ in checked] if ids is None else [check_job_id(job) for job in ids]
        if len(jobs) != len(checked):
            raise InvalidInput(f"there are {len(jobs)} `ids` for {len(checked)} instances")
        return self._accept(parsed, [(job, [instance]) for job, instance in zip(jobs, checked, strict=True)])

    def predict(
        self,
        model: str,
        instance: Any = None,
        *,
        instances: Iterable[Any] | None = None,
        timeout: float | None = 30.0,
        id: str | None = None,  # noqa: A002  # as above
        **options: Unpack[JobOptions],
    ) -> Prediction:
        """Submit a job and return its prediction; see `Client.predict`."""
        timeout = check_timeout(timeout)
        check_waits(parse_options(model, options, utc_now()))
        return self.submit(model, instance, instances=instances, id=id, **options).result(timeout)

    def listen(
        self, name: str, *, lease: float = 60.0, max_deliveries: int = 8, idle: float | None = None
    ) -> InMemoryListener:
        """Return an iterator over the jobs that have ended under a name; see `Client.listen`.

        It never waits: it ends when no job is left. One whose handling failed is left for the next iterator.
        """
        ListenState(name, lease=lease, max_deliveries=max_deliveries, idle=idle)
        return self._listening.listener(name)

    def run_listeners(self, *names: str) -> None:
        """Call the handlers that `on_outcome` registered with the jobs that have ended; see `Client`.

        It never waits: it returns when no job is left. An error of a handler is raised.
        """
        for handler in select_handlers(names, is_async=False):
            with self.listen(handler.name) as listener:
                for job in listener:
                    handler.function(job)

    def as_completed(
        self, jobs: Iterable[J], timeout: float | None = None, *, forget: bool = False
    ) -> Iterator[J]:
        """Yield finished jobs, then raise ResultTimeout at once if there are others; see `Client.as_completed`."""
        return self._as_completed(list(jobs), check_timeout(timeout), forget=forget)

    def _as_completed(self, jobs: list[J], timeout: float | None, *, forget: bool) -> Iterator[J]:
        unfinished = []
        for job in jobs:
            if job.done():
                yield from self._hand_over(job, forget=forget)
            else:
                unfinished.append(job)
        for job in unfinished:
            job.outcome(timeout)
            yield from self._hand_over(job, forget=forget)

    def _hand_over(self, job: J, *, forget: bool) -> Iterator[J]:
        yield job
        if forget:
            self.forget([job])

    def forget(self, jobs: Iterable[AnyJobHandle], *, timeout: float | None = None) -> int:
        """Delete the outcomes of those jobs that succeeded, and return their number; see `Client.forget`."""
        check_timeout(timeout)
        succeeded = [job.id for job in jobs if isinstance(self._outcomes.get(job.id), Success)]
        for job_id in succeeded:
            del self._outcomes[job_id], self._jobs[job_id]
        return len(succeeded)

    def bulk(
        self,
        model: str,
        input: str,  # noqa: A002  # as above
        output: str,
        *,
        name: str | None = None,
        version: str | None = None,
        method: str | None = None,
        key: str | None = None,
        keep: Sequence[str] | None = None,
        max_failed: float | str | None = None,
        owner: str | None = None,
        timeout: float | None = None,
    ) -> InMemoryRun:
        """Submit a bulk run, which reads and writes no file; see `Client.bulk`."""
        check_timeout(timeout)
        run = make_run(
            model,
            input,
            output,
            name=name,
            version=version,
            method=method,
            key=key,
            keep=keep,
            max_failed=max_failed,
            owner=owner,
        )
        self._models.check_method(run.model, run.version, run.method)
        self._bulk_runs.submit(run)
        return InMemoryRun(self._bulk_runs, run.name)

    def bulk_run(self, name: str) -> InMemoryRun:
        """Return the handle of a bulk run by its name; see `Client.bulk_run`."""
        return InMemoryRun(self._bulk_runs, name)

    def bulk_runs(
        self, model: str | None = None, *, limit: int = 100, timeout: float | None = None
    ) -> list[RunProgress]:
        """Return the newest bulk runs; see `Client.bulk_runs`."""
        check_timeout(timeout)
        return self._bulk_runs.list(model, limit)

    def run(self) -> int:
        """Run the waiting jobs, priority 0 first, and return their number. Those of paused models wait.

        Waiting bulk runs end, too.
        """
        self._bulk_runs.finish_waiting()
        waiting = [job for job, _ in self._jobs.values() if job.id not in self._outcomes and self._runs(job)]
        for job in sorted(waiting, key=lambda job: priority_index(job.priority)):
            self._finish(job)
        return len(waiting)

    def job(self, id: str) -> InMemoryJob:  # noqa: A002  # as above
        """Return the handle of a job by its id; see `Client.job`."""
        accepted = self._jobs.get(check_job_id(id))
        return InMemoryJob(self, id, accepted[0].model if accepted else None)

    def contract(self, model: str, version: str | None = None, *, timeout: float | None = None) -> Contract:
        """Return the contract of a model; see `Client.contract`."""
        check_timeout(timeout)
        return self._models.find_contract(*split_version(model, version))

    def accepted_columns(
        self,
        model: str,  # noqa: ARG002  # the signature of Client
        *,
        timeout: float | None = None,
    ) -> frozenset[str]:
        """Return the forms of instances in columns that it takes: all; see `Client.accepted_columns`."""
        check_timeout(timeout)
        return frozenset({"arrow", "json"})

    def models(self, *, timeout: float | None = None) -> list[str]:
        """Return the names of the models of this client, sorted."""
        check_timeout(timeout)
        return self._models.names

    def queues(self, *, timeout: float | None = None) -> list[QueueDepth]:
        """Return the depth of the queue of each model; see `Client.queues`."""
        check_timeout(timeout)
        return [self._queue_depth(model) for model in self.models()]

    def pause(self, model: str, *, reason: str = "", timeout: float | None = None) -> Pause:
        """Pause a model: its jobs wait; see `Client.pause`."""
        check_timeout(timeout)
        self._models.require(model)
        self._pauses[model] = Pause(
            by=name_user_and_host(), at_ms=int(utc_now().timestamp() * 1000), reason=check_reason(reason)
        )
        return self._pauses[model]

    def resume(self, model: str, *, timeout: float | None = None) -> bool:
        """End the pause of a model, and run its jobs; see `Client.resume`."""
        check_timeout(timeout)
        self._models.require(model)
        was_paused = self._pauses.pop(model, None) is not None
        if was_paused and self._at_once:
            self.run()
        return was_paused

    def purge_queue(self, model: str, *, on_progress: Callable[[PurgeResult], None] | None = None) -> PurgeResult:
        """Cancel the waiting jobs of a model; see `Client.purge_queue`."""
        self._models.require(model)
        waiting = [job.id for job, _ in self._jobs.values() if job.model == model and job.id not in self._outcomes]
        for job in waiting:
            self._end(job, Cancelled(job=job))
        result = PurgeResult(cancelled=len(waiting))
        if on_progress is not None:
            on_progress(result)
        return result

    def close(self) -> None:
        """Do nothing: there is no connection to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self, options: SubmitOptions, inputs: list[tuple[str, list[Instance]]]) -> list[InMemoryJob]:
        """Accept jobs, each of an id and its instances, in order. Raises JobConflict and QueueFull."""
        # All are encoded before the first is accepted: instances that cannot be sent refuse the whole call.
        jobs = [options.make_job(name, options.version, instances) for name, instances in inputs]
        digests = [self._digest(job) for job in jobs]
        accepted: list[str] = []
        for job, digest in zip(jobs, digests, strict=True):
            earlier = self._jobs.get(job.id)
            if earlier is not None and earlier[1] != digest:
                raise JobConflict(f"job {job.id} exists with another input; use another id")
            if earlier is None:
                limit = self._settings.queue_limit
                if limit and self._queue_depth(job.model).waiting >= limit:
                    raise QueueFull(
                        f"queue {queue_name(job.model)} holds {limit:,} jobs, its limit", tuple(accepted)
                    )
                self._jobs[job.id] = (job, digest)
                self.submitted.append(job)
                if self._at_once and self._runs(job) and job.id not in self._outcomes:
                    self._finish(job)
            accepted.append(job.id)
        return [InMemoryJob(self, name, options.model) for name in accepted]

    def _digest(self, job: Job) -> bytes:
        limits = JobLimits(self._settings.max_job_bytes, self._settings.max_job_values)
        instances = encode_instances_within(job.instances, limits)
        return JobEncoder(job, job.version).encode(job.id, instances).digest

    def _finish(self, job: Job) -> None:
        """Run a job and store its outcome, and a dead letter if it fails."""
        outcome = self._models.run(job)
        self._end(job.id, outcome)
        if isinstance(outcome, Failure):
            self.dead_letters.store(job, outcome, self._models.find_version(job))

    def _end(self, job_id: str, outcome: Outcome) -> None:
        """Store the outcome of a job, and keep it for its listeners."""
        self._outcomes[job_id] = outcome
        if job_id in self._jobs:
            self._listening.add(self._jobs[job_id][0], outcome)

    def _replay(self, job: Job) -> None:
        """Enqueue the job of a dead letter again, which may have another version now."""
        self._jobs[job.id] = (job, self._jobs[job.id][1])
        del self._outcomes[job.id]
        if self._at_once and self._runs(job):
            self._finish(job)

    def _runs(self, job: Job) -> bool:
        return job.model not in self._pauses

    def _queue_depth(self, model: str) -> QueueDepth:
        by_priority = dict.fromkeys(PRIORITY_STEPS, 0)
        for job, _ in self._jobs.values():
            if job.model == model and job.id not in self._outcomes:
                by_priority[PRIORITY_STEPS[priority_index(job.priority)]] += 1
        return QueueDepth(
            model=model, queue=queue_name(model), by_priority=by_priority, paused=self._pauses.get(model)
        )

    def read_state(self, job: str) -> tuple[Status, Outcome | None]:
        """Return the status and outcome of a job, for its handle."""
        outcome = self._outcomes.get(job)
        if outcome is not None:
            return outcome_status(outcome), outcome
        return ("waiting" if job in self._jobs else "unknown"), None

    def cancel(self, job: str, *, unknown: bool) -> bool:
        """Cancel a job, for its handle; see `JobHandle.cancel`."""
        if not unknown and job not in self._jobs and job not in self._outcomes:
            return False
        if job not in self._outcomes:
            self._end(job, Cancelled(job=job))
        return isinstance(self._outcomes[job], Cancelled)
