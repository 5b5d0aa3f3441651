"""The client: submit jobs to the queues of models, and get their outcomes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, cast

from headrace.bulk.operations import list_runs, submit_run
from headrace.bulk.specification import make_run
from headrace.catalog import pauses
from headrace.catalog.contract import Contract
from headrace.catalog.pauses import Pause
from headrace.catalog.published import check_published, list_models
from headrace.catalog.workers import read_accepted_columns
from headrace.client.aio.dead_letters import AsyncDeadLetters
from headrace.client.aio.handlers import run_handlers
from headrace.client.aio.job import AsyncJobHandle
from headrace.client.aio.listener import AsyncListener
from headrace.client.aio.predict import submit_and_receive
from headrace.client.aio.protocols import AnyAsyncJobHandle
from headrace.client.aio.run import AsyncRunHandle
from headrace.client.aio.session import AsyncSession
from headrace.client.common import check_handles, check_timeout, check_waits, jobs_timeout, resolve_settings
from headrace.client.listen_state import ListenState
from headrace.clock import Deadline, utc_now
from headrace.inspection import queues
from headrace.inspection.queues import QueueDepth
from headrace.results.forget import JOBS_PER_CALL, forget_outcomes
from headrace.results.purge import PurgeResult, QueuePurge
from headrace.results.reply_channel import bulk_jobs
from headrace.settings import Settings
from headrace.submit.options import JobOptions, instances_from, iterate_instances, parse_options
from headrace.user import name_user_and_host
from headrace.wire.bulk import RunProgress
from headrace.wire.names import check_job_id, check_model_name, split_version
from headrace.wire.outcome import Prediction
from headrace.wire.queues import queue_name

J = TypeVar("J", bound=AnyAsyncJobHandle)


class AsyncClient:
    """Submits jobs to the queues of models and gets their outcomes. A context manager.

    It connects when it is first used. In blocking code, one client serves a whole process: it is safe for threads,
    and after fork. In asyncio, it works in any event loop, and has connections of its own in each.

    `url` is redis://, rediss:// (TLS) or unix://; None is HEADRACE_REDIS_URL, else REDIS_URL. `settings` replace
    the environment altogether. With `check=False` jobs are enqueued without a look at the model's contract.

    `timeout` is the most seconds of a command with all its repetitions, `connect_timeout` those for opening a
    connection; None are those of the settings (`command_timeout`, `connect_timeout`). The `timeout` of a call is
    for the whole call.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        check: bool = True,
        timeout: float | None = None,
        connect_timeout: float | None = None,
    ) -> None:
        resolved = resolve_settings(url, settings, timeout=timeout, connect_timeout=connect_timeout)
        self._session = AsyncSession(resolved, check=check)

    async def submit(
        self,
        model: str,
        instance: Any = None,
        *,
        instances: Iterable[Any] | None = None,
        id: str | None = None,  # noqa: A002  # the word users know
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncJobHandle:
        """Enqueue a job of one instance, or of several (`instances=[...]`), and return at once.

        The model's name may be followed by a version: `churn@7`, or an alias, `churn@tested`. A call with an `id`
        of your own may be repeated: the same id and input is the same job. Options are version, method, priority,
        expires, delay, metadata, durable, owner, notify and listen (`headrace.submit.options.JobOptions`). The
        call takes `timeout` seconds at most; None is the client's.

        Raises InvalidInput (UnknownModel, JobConflict), QueueFull or BrokerUnavailable; then nothing was enqueued,
        unless the connection was lost before the reply of Redis arrived. Raises NotDurable for a durable job.
        """
        now = utc_now()
        parsed = parse_options(model, options, now)
        operation = self._session.submitter.submit(parsed, instances_from(instance, instances), id, now)
        # Without a timeout, the confirmation of a durable job has the time of a command for itself.
        run = self._session.run if parsed.durable else self._session.run_briefly
        job = await run(operation, timeout)
        return AsyncJobHandle(self._session, job, parsed.model, own=id is None)

    async def submit_many(
        self,
        model: str,
        instances: Iterable[Any],
        *,
        ids: Iterable[str] | None = None,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> list[AsyncJobHandle]:
        """Enqueue a job for each instance, and return their handles in the order of the instances.

        A list is checked as a whole before the first job is enqueued. An iterator is checked and enqueued in
        chunks: the jobs before a refused instance stay enqueued. `QueueFull.accepted` lists the enqueued jobs.
        `timeout` is the most seconds of the call; for None, each of its commands has the client's.
        """
        now = utc_now()
        parsed = parse_options(model, options, now)
        jobs = await self._session.run(
            self._session.submitter.submit_many(parsed, iterate_instances(instances), ids, now), timeout
        )
        return [AsyncJobHandle(self._session, job, parsed.model, own=ids is None) for job in jobs]

    async def predict(
        self,
        model: str,
        instance: Any = None,
        *,
        instances: Iterable[Any] | None = None,
        timeout: float | None = 30.0,
        id: str | None = None,  # noqa: A002  # as above
        **options: Unpack[JobOptions],
    ) -> Prediction:
        """Submit a job and wait for its prediction, `timeout` seconds at most; None waits for ever.

        Raises as `submit` and `AsyncJobHandle.result` do.
        """
        deadline = Deadline(check_timeout(timeout))
        now = utc_now()
        parsed, job_instances = parse_options(model, options, now), instances_from(instance, instances)
        check_waits(parsed)
        outcome = None
        if id is None:
            job, outcome = await submit_and_receive(self._session, parsed, job_instances, now, deadline)
        else:
            job = check_job_id(id)
            operation = self._session.submitter.submit(parsed, job_instances, job, now)
            await self._session.run(operation, deadline.remaining())
        if outcome is None:
            outcome = await self._session.outcome(job, deadline)
        return outcome.get()

    def listen(
        self, name: str, *, lease: float = 60.0, max_deliveries: int = 8, idle: float | None = None
    ) -> AsyncListener:
        """Return an iterator that yields each job submitted with `listen=name` once it has ended, at least once.

        To ask for the next job is to have handled the one before; `AsyncListener` says what an error does. All
        listeners of a name share its jobs, in any number of processes, and one that starts later gets what has
        ended meanwhile. A job that is not handled within `lease` seconds is delivered again, to any of them. After
        `max_deliveries`, its end is a dead letter. The iterator ends after `idle` seconds without a job; None
        waits for ever.
        """
        state = ListenState(name, lease=lease, max_deliveries=max_deliveries, idle=idle)
        return AsyncListener(self._session, state)

    async def run_listeners(self, *names: str) -> None:
        """Call the handlers that `on_outcome` registered, of these names or of all, with each job that has ended.

        Each name has its own loop, which handles one job after the other. An error of a handler is logged, and its
        job delivered again. SIGTERM and SIGINT let the handlers in progress finish, then the call returns. Raises
        InvalidInput for a name without a handler, and BrokerUnavailable if Redis refuses the user.
        """
        await run_handlers(self.listen, names)

    def as_completed(
        self, jobs: Iterable[J], timeout: float | None = None, *, forget: bool = False
    ) -> AsyncIterator[J]:
        """Yield the jobs as they finish, each with its outcome.

        With `forget`, the outcome of a success is deleted from Redis once you ask for the next job, or a little
        later (`forget`). Raises ResultTimeout `timeout` seconds from now, and BrokerUnavailable as
        `AsyncJobHandle.outcome`.
        """
        handles = check_handles(list(jobs), AsyncJobHandle)
        completed = self._as_completed(handles, Deadline(check_timeout(timeout)))
        # The same handles are yielded.
        return cast("AsyncIterator[J]", self._forget_each(completed) if forget else completed)

    async def _forget_each(self, completed: AsyncIterator[AsyncJobHandle]) -> AsyncIterator[AsyncJobHandle]:
        handled: list[AsyncJobHandle] = []
        async for job in completed:
            yield job
            handled.append(job)
            if len(handled) == JOBS_PER_CALL:
                await self.forget(handled)
                handled.clear()
        await self.forget(handled)

    async def forget(self, jobs: Iterable[AnyAsyncJobHandle], *, timeout: float | None = None) -> int:
        """Delete the outcomes of those jobs that succeeded from Redis, and return their number.

        Handles that hold the outcome keep it. To every other reader the id is unknown from then on, and it can be
        submitted again. Raises BrokerUnavailable, also if the Redis user may not delete outcomes.
        """
        return await self._session.run(forget_outcomes(self._session.keys, [job.id for job in jobs]), timeout)

    async def _as_completed(self, jobs: list[AsyncJobHandle], deadline: Deadline) -> AsyncIterator[AsyncJobHandle]:
        unfinished: dict[str, AsyncJobHandle] = {}
        duplicates: dict[str, list[AsyncJobHandle]] = {}  # further handles of the same job
        for job in jobs:
            if job.has_outcome:
                yield job
            elif job.id in unfinished:
                duplicates.setdefault(job.id, []).append(job)
            else:
                unfinished[job.id] = job
        own = bulk_jobs({job.id for job in unfinished.values() if job.own})
        async with self._session.listener.subscribe(unfinished, own=own) as subscription:
            while unfinished:
                arrived = await subscription.next(deadline.remaining())
                if arrived is None:
                    if self._session.listener.error is not None:
                        raise self._session.listener.error
                    raise jobs_timeout(unfinished, len(jobs), deadline.timeout or 0.0)
                name, outcome = arrived
                for job in (unfinished.pop(name), *duplicates.pop(name, ())):
                    job.set_outcome(outcome)
                    yield job

    async def bulk(
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
    ) -> AsyncRunHandle:
        """Submit a bulk run: workers read a table of any size, and write it with its predictions. Return at once.

        `input` and `output` are references, a location of the workers' settings and a path below it: a file, a
        folder or a glob such as `in:2026-11/*.parquet`, and the folder of the parts, `out:scores/2026-11`.

        `name` identifies the run: to submit it again is to resume it, so a call may be repeated. None makes a new
        name. `key` is the column that identifies a row in the errors, `keep` the columns of the input that the
        output has too: None for all, `[]` for none. `max_failed` ends the run when more rows fail: a number, or
        a share such as `"1%"`. The gateway sets `owner`, its caller.

        Raises InvalidInput (UnknownModel; RunConflict if the name belongs to a run with other arguments) and
        BrokerUnavailable. Then nothing was enqueued, unless the connection was lost before Redis replied.
        """
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
        session = self._session
        contracts = session.contracts if session.checks else None
        await session.run_briefly(
            submit_run(session.keys, run, session.settings, session.job_keys, contracts=contracts, now=utc_now()),
            timeout,
        )
        return AsyncRunHandle(session, run.name)

    def bulk_run(self, name: str) -> AsyncRunHandle:
        """Return the handle of any bulk run by its name. Asks Redis nothing yet."""
        return AsyncRunHandle(self._session, name)

    async def bulk_runs(
        self, model: str | None = None, *, limit: int = 100, timeout: float | None = None
    ) -> list[RunProgress]:
        """Return the newest bulk runs, of one model or of all, newest first."""
        return await self._session.run(list_runs(self._session.keys, model=model, limit=limit), timeout)

    def job(self, id: str) -> AsyncJobHandle:  # noqa: A002  # as above
        """Return the handle of any job by its id. Asks Redis nothing yet."""
        return AsyncJobHandle(self._session, check_job_id(id))

    async def contract(self, model: str, version: str | None = None, *, timeout: float | None = None) -> Contract:
        """Return the contract of a version, given by number or alias, or of the version that serves for None.

        The version that serves is that of the alias `production`, else the newest; it is never a canary. Raises
        UnknownModel.
        """
        name, version = split_version(model, version)
        return await self._session.run_briefly(
            self._session.contracts.resolve(check_model_name(name), version, utc_now()), timeout
        )

    async def accepted_columns(self, model: str, *, timeout: float | None = None) -> frozenset[str]:
        """Return the forms in which all workers of a model take instances in columns: `arrow`, `json` or neither.

        They are none while no worker runs, and for a Redis user who may not read the statuses of workers.
        """
        operation = read_accepted_columns(self._session.keys, check_model_name(model))
        return await self._session.run_briefly(operation, timeout)

    async def models(self, *, timeout: float | None = None) -> list[str]:
        """Return the names of the models with a published contract, sorted."""
        return await self._session.run_briefly(list_models(self._session.keys), timeout)

    async def queues(self, *, timeout: float | None = None) -> list[QueueDepth]:
        """Return the depth of the queue of each of these models."""
        return await self._session.run(queues.read_queues(self._session.keys), timeout)

    async def pause(self, model: str, *, reason: str = "", timeout: float | None = None) -> Pause:
        """Pause a model: within about a second, no worker claims a job of it. It replaces an earlier pause.

        Jobs are accepted and wait; jobs that a worker has claimed finish. The pause stays until `resume`. It names
        the user and host of this process, and the reason. Raises UnknownModel, InvalidInput for a long reason.
        """
        return await self._session.run(
            pauses.pause(self._session.keys, model, by=name_user_and_host(), reason=reason, now=utc_now()), timeout
        )

    async def resume(self, model: str, *, timeout: float | None = None) -> bool:
        """End the pause of a model. Return False if it was not paused. Raises UnknownModel."""
        return await self._session.run(pauses.resume(self._session.keys, model), timeout)

    async def purge_queue(
        self, model: str, *, on_progress: Callable[[PurgeResult], None] | None = None
    ) -> PurgeResult:
        """Empty the queue of a model: waiting, retried, isolated and delayed jobs end as cancelled.

        It takes many small steps, and calls `on_progress` after each. Jobs that a worker has claimed finish. The
        Redis user needs the rights of `worker`. Raises UnknownModel.
        """
        await self._session.run(check_published(self._session.keys, model))
        purge = QueuePurge(self._session.keys, queue_name(model), ttl=self._session.settings.result_ttl)
        while not purge.finished:
            await self._session.run(purge.step(utc_now()))
            if on_progress is not None:
                on_progress(purge.result)
        return purge.result

    @property
    def dead_letters(self) -> AsyncDeadLetters:
        """The jobs that failed for good: list, replay or purge them."""
        return AsyncDeadLetters(self._session)

    async def close(self) -> None:
        """Close the connections. Calls that wait for an outcome end with a HeadraceError."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
