"""A client without Redis, for the tests of programs that use Headrace.

    from headrace.testing import InMemoryClient

    client = InMemoryClient({"churn": lambda instances: [0 for _ in instances]})
    assert client.predict("churn", {"age": 41}).prediction == 0
    assert client.submitted[0].instances == [{"age": 41}]

It has the methods of `headrace.Client`, and refuses what that one refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import msgspec

from headrace.catalog.contract import Contract, Output
from headrace.catalog.validation import check_instances, check_method
from headrace.clock import utc_now
from headrace.errors import InvalidInput, JobConflict, QueueFull, ResultTimeout, UnknownModel
from headrace.inspection.queues import QueueDepth
from headrace.inspection.timeline import JobFacts, Timeline, build_timeline
from headrace.settings import Settings
from headrace.submit.enqueue import JobEncoder, encode_instances_within
from headrace.submit.options import JobOptions, SubmitOptions, instances_from, iterate_instances, parse_options
from headrace.testing.dead_letters import InMemoryDeadLetters
from headrace.wire.keys import (
    PRIORITY_STEPS,
    check_job_id,
    check_model_name,
    priority_index,
    queue_name,
    split_version,
)
from headrace.wire.message import Instance, Job, encode_instances, new_id
from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Prediction, Status, Success, outcome_status

#: Instances in, one prediction for each out.
Answer = Callable[[list[Instance]], Sequence[Any]]


class InMemoryClient:
    """Models given as functions, as contracts, or both; jobs run when submitted, or when told.

    `models` maps a name to a function of a list of instances that returns a prediction for each; or to a
    Contract, whose predictions are all its first class, or 0. `contracts` are those of models given as
    functions; instances are checked where there is one. What a function raises is the job's failure. With
    `at_once=False` jobs wait until `run()`. Delays are not waited for. `submitted` lists every job.
    """

    def __init__(
        self,
        models: Mapping[str, Answer | Contract],
        *,
        contracts: Iterable[Contract] = (),
        settings: Settings | None = None,
        at_once: bool = True,
    ) -> None:
        #: Every job, in the order it was submitted.
        self.submitted: list[Job] = []
        self._settings = settings or Settings()
        self._at_once = at_once
        #: Every job accepted, and the digest of what was asked.
        self._jobs: dict[str, tuple[Job, bytes]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._answers: dict[str, Answer] = {}
        self._contracts: dict[str, Contract] = {contract.model: contract for contract in contracts}
        #: As `Client.dead_letters`.
        self.dead_letters = InMemoryDeadLetters(self._run_again)
        for name, model in models.items():
            check_model_name(name)
            if isinstance(model, Contract):
                self._contracts[name] = model
                self._answers[name] = _placeholder(model.methods[model.method])
            else:
                self._answers[name] = model

    def submit(
        self,
        model: str,
        instance: Any = None,
        *,
        instances: Iterable[Any] | None = None,
        id: str | None = None,  # noqa: A002  # the word users know
        **options: Unpack[JobOptions],
    ) -> InMemoryJob:
        """As `Client.submit`."""
        wanted = parse_options(model, options, utc_now())
        checked = self._checked(wanted, instances_from(instance, instances))
        return self._accept(wanted, [(check_job_id(id) if id is not None else new_id(), checked)])[0]

    def submit_many(
        self,
        model: str,
        instances: Iterable[Any],
        *,
        ids: Iterable[str] | None = None,
        **options: Unpack[JobOptions],
    ) -> list[InMemoryJob]:
        """As `Client.submit_many`; an iterator is read to its end before anything is enqueued."""
        wanted = parse_options(model, options, utc_now())
        given = list(iterate_instances(instances))
        checked = self._checked(wanted, given) if given else []
        names = [new_id() for _ in given] if ids is None else [check_job_id(name) for name in ids]
        if len(names) != len(checked):
            raise InvalidInput(f"there are {len(names)} `ids` for {len(checked)} instances")
        return self._accept(wanted, [(name, [one]) for name, one in zip(names, checked, strict=True)])

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
        """As `Client.predict`."""
        return self.submit(model, instance, instances=instances, id=id, **options).result(timeout)

    def as_completed(self, jobs: Iterable[InMemoryJob], timeout: float | None = None) -> Iterator[InMemoryJob]:
        """As `Client.as_completed`; ResultTimeout is raised without a wait."""
        waiting = []
        for job in jobs:
            if job.done():
                yield job
            else:
                waiting.append(job)
        for job in waiting:
            job.outcome(timeout)
            yield job

    def run(self) -> int:
        """Run the jobs that wait, the first priority first; how many there were."""
        waiting = [job for job, _ in self._jobs.values() if job.id not in self._outcomes]
        for job in sorted(waiting, key=lambda job: priority_index(job.priority)):
            self._end(job)
        return len(waiting)

    def job(self, id: str) -> InMemoryJob:  # noqa: A002  # as above
        """As `Client.job`."""
        known = self._jobs.get(check_job_id(id))
        return InMemoryJob(self, id, known[0].model if known else None)

    def contract(self, model: str, version: str | None = None) -> Contract:
        """As `Client.contract`."""
        model, version = split_version(model, version)
        contract = self._contracts.get(check_model_name(model))
        if contract is None:
            raise UnknownModel(f"no model {model!r} is published. Known: {', '.join(self.models()) or 'none'}")
        if version not in {None, contract.version}:
            raise UnknownModel(f"model {model!r} has no version {version!r}; it has {contract.version}")
        return contract

    def models(self) -> list[str]:
        """The models of this client, sorted."""
        return sorted(self._answers)

    def queues(self) -> list[QueueDepth]:
        """As `Client.queues`."""
        return [self._depth(model) for model in self.models()]

    def close(self) -> None:
        """As `Client.close`; there is nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self, wanted: SubmitOptions, instances: list[Any]) -> list[Instance]:
        if not instances:
            raise InvalidInput("a job needs at least one instance; the list is empty")
        if wanted.model not in self._answers:
            raise UnknownModel(
                f"no model {wanted.model!r} is published. Known: {', '.join(self.models()) or 'none'}"
            )
        if wanted.model not in self._contracts:
            return instances
        contract = self.contract(wanted.model, wanted.version)
        check_method(contract, wanted.method)
        return check_instances(contract, instances)

    def _accept(self, wanted: SubmitOptions, jobs: list[tuple[str, list[Instance]]]) -> list[InMemoryJob]:
        most = self._settings.max_job_bytes
        wants = [wanted.make_job(name, wanted.version, given) for name, given in jobs]
        packed = [
            JobEncoder(job, job.version).encode(job.id, encode_instances_within(job.instances, most))
            for job in wants
        ]
        accepted: list[str] = []
        for job, one in zip(wants, packed, strict=True):
            name = job.id
            known = self._jobs.get(name)
            if known is not None and known[1] != one.digest:
                raise JobConflict(f"job {name} exists with another input; use another id")
            if known is None:
                limit = self._settings.queue_limit
                if limit and self._depth(wanted.model).waiting >= limit:
                    raise QueueFull(
                        f"queue {queue_name(wanted.model)} holds {limit:,} jobs, its limit", tuple(accepted)
                    )
                self._jobs[name] = (job, one.digest)
                self.submitted.append(job)
                if self._at_once:
                    self._end(job)
            accepted.append(name)
        return [InMemoryJob(self, name, wanted.model) for name in accepted]

    def _end(self, job: Job) -> None:
        """Run a job; what fails is a dead letter too."""
        outcome = self._outcomes[job.id] = self._run(job)
        if isinstance(outcome, Failure):
            self.dead_letters.store(job, outcome, self._version(job))

    def _run_again(self, job: Job) -> None:
        self._jobs[job.id] = (job, self._jobs[job.id][1])
        del self._outcomes[job.id]
        if self._at_once:
            self._end(job)

    def _version(self, job: Job) -> str:
        contract = self._contracts.get(job.model)
        return job.version or (contract.version if contract else "1")

    def _run(self, job: Job) -> Outcome:
        if job.expires is not None and job.expires <= utc_now():
            return Expired(job=job.id)
        try:
            predictions = _predictions(self._answers[job.model], job.instances)
        except Exception as error:  # noqa: BLE001  # whatever a model raises is its job's failure
            return Failure(
                job=job.id,
                reason="bad input" if isinstance(error, InvalidInput) else "permanent",
                error=type(error).__name__,
                module=type(error).__module__,
                message=str(error),
            )
        return Success(
            job=job.id, prediction=Prediction(model=job.model, version=self._version(job), predictions=predictions)
        )

    def _depth(self, model: str) -> QueueDepth:
        by_priority = dict.fromkeys(PRIORITY_STEPS, 0)
        for job, _ in self._jobs.values():
            if job.model == model and job.id not in self._outcomes:
                by_priority[PRIORITY_STEPS[priority_index(job.priority)]] += 1
        return QueueDepth(model=model, queue=queue_name(model), by_priority=by_priority)

    def look(self, job: str) -> tuple[Status, Outcome | None]:
        """Where a job is; for its handle."""
        ended = self._outcomes.get(job)
        if ended is not None:
            return outcome_status(ended), ended
        return ("queued" if job in self._jobs else "unknown"), None

    def cancel(self, job: str) -> bool:
        """As `JobHandle.cancel`; for the handle."""
        return isinstance(self._outcomes.setdefault(job, Cancelled(job=job)), Cancelled)


class InMemoryJob:
    """A job of an InMemoryClient, as `headrace.JobHandle`. It never waits."""

    def __init__(self, client: InMemoryClient, job: str, model: str | None) -> None:
        self.id = job
        self.model = model
        self._client = client

    def status(self) -> Status:
        """Where the job is."""
        return self._client.look(self.id)[0]

    def done(self) -> bool:
        """Whether the job has its outcome."""
        return self._client.look(self.id)[1] is not None

    def outcome(self, timeout: float | None = None) -> Outcome:  # noqa: ARG002  # the signature of JobHandle
        """The outcome; ResultTimeout where there is none yet."""
        status, ended = self._client.look(self.id)
        if ended is None:
            raise ResultTimeout(f"job {self.id} has no outcome; it is {status}: call `run()` of the client first")
        return ended

    def result(self, timeout: float | None = None) -> Prediction:
        """The prediction, or the error the job ended in."""
        return self.outcome(timeout).get()

    def cancel(self) -> bool:
        """Cancel the job; True if it is cancelled, False if it has another outcome already."""
        return self._client.cancel(self.id)

    def explain(self) -> Timeline:
        """What became of the job: its outcome, if it has one."""
        status, ended = self._client.look(self.id)
        told = build_timeline(JobFacts(job=self.id, outcome=ended))
        return msgspec.structs.replace(told, status=status, model=self.model, note=None)

    def __repr__(self) -> str:
        return f"<InMemoryJob {self.id}{f' of {self.model}' if self.model else ''}>"


def _predictions(answer: Answer, given: Sequence[Instance]) -> list[Any]:
    # What the worker sees: instances that have been JSON, and predictions that will be.
    instances = msgspec.json.decode(encode_instances(given))
    predictions: list[Any] = msgspec.json.decode(encode_instances(list(answer(instances))))
    if len(predictions) != len(instances):
        raise ValueError(f"{len(predictions)} predictions for {len(instances)} instances")
    return predictions


def _placeholder(output: Output) -> Answer:
    def one(shape: tuple[int, ...]) -> Any:
        if shape:
            return [one(shape[1:]) for _ in range(shape[0])]
        return output.classes[0] if output.classes and not output.shape else 0

    return lambda instances: [one(output.shape) for _ in instances]
