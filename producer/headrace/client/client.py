"""The client: put jobs on the queue, and get their outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, Unpack

import msgspec

from headrace.catalog import published
from headrace.catalog.contract import Contract
from headrace.client.dead_letters import DeadLetters
from headrace.client.job import JobHandle
from headrace.client.session import Session, jobs_timeout
from headrace.clock import Deadline, utc_now
from headrace.inspection import queues
from headrace.inspection.queues import QueueDepth
from headrace.results.inbox import SOON, in_bulk
from headrace.settings import Settings, load
from headrace.submit.options import JobOptions, instances_from, iterate_instances, parse_options
from headrace.wire.keys import check_job_id, check_model_name, split_version
from headrace.wire.outcome import Prediction


class Client:
    """Puts jobs on the queue of a model and gets their outcomes. A context manager.

    One client serves a whole process: it is safe for threads, and after fork. It connects when first used.
    `url` is redis://, rediss:// (TLS) or unix://, HEADRACE_REDIS_URL or else REDIS_URL by default; `settings`
    replace the environment altogether. `check=False` enqueues without looking at the model's contract.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None, check: bool = True) -> None:
        self._session = Session(settings_of(url, settings), check=check)

    def submit(
        self,
        model: str,
        instance: Any = None,
        *,
        instances: Iterable[Any] | None = None,
        id: str | None = None,  # noqa: A002  # the word users know
        **options: Unpack[JobOptions],
    ) -> JobHandle:
        """Enqueue a job of one instance, or of several (`instances=[...]`); returns at once.

        A version may stand behind the model's name: `churn@7`, or an alias, `churn@tested`. With an `id` of your
        own the call may be repeated: the same id and input is the same job. Options are
        version, method, priority, expires, delay and metadata (`headrace.submit.options.JobOptions`). Raises
        InvalidInput (UnknownModel, JobConflict), QueueFull or BrokerUnavailable; then nothing was enqueued,
        but for a connection lost for good while Redis answered.
        """
        now = utc_now()
        wanted = parse_options(model, options, now)
        job = self._session.run(
            self._session.submitter.submit(wanted, instances_from(instance, instances), id, now)
        )
        return JobHandle(self._session, job, wanted.model, own=id is None)

    def submit_many(
        self,
        model: str,
        instances: Iterable[Any],
        *,
        ids: Iterable[str] | None = None,
        **options: Unpack[JobOptions],
    ) -> list[JobHandle]:
        """Enqueue a job for each instance; the handles are in the order of the instances.

        A list is checked as a whole before the first job is enqueued. An iterator is checked and enqueued in
        chunks: where one is refused, the jobs of those before it stay. QueueFull holds what was `accepted`.
        """
        now = utc_now()
        wanted = parse_options(model, options, now)
        jobs = self._session.run(
            self._session.submitter.submit_many(wanted, iterate_instances(instances), ids, now)
        )
        return [JobHandle(self._session, job, wanted.model, own=ids is None) for job in jobs]

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
        """Submit, and wait for the prediction, `timeout` seconds at the most. Raises what both do."""
        deadline = Deadline(timeout)
        now = utc_now()
        wanted, given = parse_options(model, options, now), instances_from(instance, instances)
        if id is not None:
            job = check_job_id(id)
            self._session.run(self._session.submitter.submit(wanted, given, job, now), deadline.left())
            return JobHandle(self._session, job, wanted.model).result(deadline.left())
        with self._session.direct.acquire() as line:
            inbox = line.reply_channel if line.open(deadline.left()) else None
            job = self._session.run(
                self._session.submitter.submit(wanted, given, None, now, inbox), deadline.left()
            )
            told = line.receive(job, deadline.left_or(SOON)) if inbox else None
        if told is not None:
            return told.get()
        return JobHandle(self._session, job, wanted.model).result(deadline.left())

    def as_completed(self, jobs: Iterable[JobHandle], timeout: float | None = None) -> Iterator[JobHandle]:
        """The jobs as they end, each with its outcome in it. Raises ResultTimeout `timeout` seconds from now."""
        return self._as_completed(list(jobs), Deadline(timeout))

    def _as_completed(self, jobs: list[JobHandle], deadline: Deadline) -> Iterator[JobHandle]:
        waited: dict[str, JobHandle] = {}
        # Further handles of one job.
        others: dict[str, list[JobHandle]] = {}
        for job in jobs:
            if job.has_outcome:
                yield job
            elif job.id in waited:
                others.setdefault(job.id, []).append(job)
            else:
                waited[job.id] = job
        own = in_bulk({name for name, job in waited.items() if job.own})
        with self._session.listener.subscribe(waited, own=own) as watch:
            while waited:
                arrived = watch.next(deadline.left())
                if arrived is None:
                    if self._session.listener.error is not None:
                        raise self._session.listener.error
                    raise jobs_timeout(set(waited), len(jobs), deadline.timeout or 0.0)
                name, outcome = arrived
                for job in (waited.pop(name), *others.pop(name, ())):
                    job.set_outcome(outcome)
                    yield job

    def job(self, id: str) -> JobHandle:  # noqa: A002  # as above
        """The job of an id, whoever submitted it. Asks Redis nothing yet."""
        return JobHandle(self._session, check_job_id(id))

    def contract(self, model: str, version: str | None = None) -> Contract:
        """The contract of a version of a model, of the newest by default. Raises UnknownModel."""
        name, version = split_version(model, version)
        return self._session.run(self._session.contracts.named(check_model_name(name), version, utc_now()))

    def models(self) -> list[str]:
        """The models a worker has published a contract of, sorted."""
        return self._session.run(published.list_models(self._session.keys))

    def queues(self) -> list[QueueDepth]:
        """What waits in the queue of each of these models."""
        return self._session.run(queues.read_queues(self._session.keys))

    @property
    def dead_letters(self) -> DeadLetters:
        """The jobs that failed for good: look at them, replay them, purge them."""
        return DeadLetters(self._session)

    def close(self) -> None:
        """Close the connections. Waits that go on in other threads end with a HeadraceError."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def settings_of(url: str | None, settings: Settings | None) -> Settings:
    """The settings of a client: given, or of the environment; a URL given goes before both."""
    settings = load(Settings) if settings is None else settings
    return settings if url is None else msgspec.structs.replace(settings, redis_url=url)
