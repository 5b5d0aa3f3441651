"""`Client` and `JobHandle` for asyncio: the same names with await, the same decisions.

One task of the running loop listens for all waiters of a client, as the thread of
`headrace.results.listener` does.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from redis.exceptions import RedisError

from headrace.catalog import published
from headrace.catalog.contract import Contract
from headrace.catalog.published import Contracts
from headrace.client.aio_dead_letters import AsyncDeadLetters
from headrace.client.client import settings_of
from headrace.client.session import FINAL_LOOKUP_TIMEOUT, job_timeout, jobs_timeout
from headrace.clock import Deadline, utc_now
from headrace.connection import connect
from headrace.connection.commands import (
    Command,
    PendingReply,
    Pipeline,
    Pipelined,
    PipelinedOperation,
    execute_async,
    run_async,
)
from headrace.connection.retry import RetryPolicy
from headrace.inspection import queues
from headrace.inspection.job import JobInspector
from headrace.inspection.queues import QueueDepth
from headrace.inspection.timeline import Timeline
from headrace.results import publish
from headrace.results.aio_listener import AsyncOutcomeListener, AsyncSubscription
from headrace.results.inbox import SOON, in_bulk
from headrace.settings import Settings
from headrace.submit.options import JobOptions, instances_from, iterate_instances, parse_options
from headrace.submit.submitter import Submitter
from headrace.wire.keys import Keys, check_job_id, check_model_name, split_version
from headrace.wire.message import new_id
from headrace.wire.outcome import Outcome, Prediction, Status, status_of
from headrace.wire.signing import JobKeys

T = TypeVar("T")


class _PendingTask(PendingReply):
    """A command whose reply a task waits for, while its plan goes on."""

    def __init__(self, command: Command, task: asyncio.Future[Any]) -> None:
        self.command, self._task = command, task

    def reply(self) -> asyncio.Future[Any]:
        """To be awaited."""
        return self._task

    def drop(self) -> None:
        """Do without the reply."""
        if not self._task.cancel() and not self._task.cancelled():
            self._task.exception()  # nobody else asks, and asyncio would complain


class AsyncSession:
    """`headrace.client.session.Link` for asyncio. It belongs to the loop it is first used in."""

    def __init__(self, settings: Settings, *, check: bool) -> None:
        self.settings = settings
        self.keys = Keys(settings.key_prefix)
        self.reply_channel = uuid.uuid4().hex
        self.job_keys = JobKeys.parse(settings.job_keys)
        self.contracts = Contracts(self.keys, settings.contract_ttl)
        self.submitter = Submitter(
            settings, self.keys, self.contracts, self.job_keys, inbox=self.reply_channel, check=check
        )
        self.inspector = JobInspector(self.keys)
        self._redis = connect.connect_async(settings, retries=0)  # as Link's
        self._patience = RetryPolicy(settings.command_timeout)
        self.listener = AsyncOutcomeListener(self._redis, self.keys, settings, self.reply_channel)

    async def run(self, plan: PipelinedOperation[T], within: float | None = None) -> T:
        """Carry a plan out, as `Link.do`. Raises BrokerUnavailable."""
        with connect.translate_errors(self.settings):
            return await run_async(partial(self._ask, within), plan)

    async def _ask(self, within: float | None, asked: Command | Pipeline | Pipelined | PendingReply) -> Any:
        if isinstance(asked, Pipelined):
            task = asyncio.ensure_future(self._ask_patiently(within, asked.command))
            sent = _PendingTask(asked.command, task)
            for _ in range(2):  # it starts, and in Python 3.11 a task within it sends
                await asyncio.sleep(0)
            return sent
        if isinstance(asked, PendingReply):
            return await asked.reply()
        return await self._ask_patiently(within, asked)

    async def _ask_patiently(self, within: float | None, command: Command | Pipeline) -> Any:
        began, tries = time.monotonic(), 0
        while True:
            try:
                reply = await execute_async(self._redis, command)
            except RedisError as error:
                tries += 1
                rest = self._patience.next_delay(
                    error, tries=tries, elapsed=time.monotonic() - began, timeout=within
                )
                if rest is None:
                    raise
                await connect.close_idle_async(self._redis)
                await asyncio.sleep(rest)
            else:
                self._patience.succeeded()
                return reply

    async def outcome(self, job: str, timeout: float | None) -> Outcome:  # noqa: ASYNC109  # as Client's
        """Wait for the outcome of a job. Raises ResultTimeout, and BrokerUnavailable where Redis was away."""
        async with self.listener.subscribe([job]) as watch:
            return await self.receive_outcome(watch, job, timeout, given=timeout)

    async def receive_outcome(
        self,
        watch: AsyncSubscription,
        job: str,
        timeout: float | None,  # noqa: ASYNC109  # as Client's
        *,
        given: float | None,
    ) -> Outcome:
        """The outcome a watch of one job brings. `given` is the time the caller spoke of."""
        arrived = await watch.next(timeout)
        if arrived is not None:
            return arrived[1]
        if self.listener.error is not None:
            raise self.listener.error
        known = await self.run(self.inspector.read_state(job), within=FINAL_LOOKUP_TIMEOUT)
        if known.outcome is None:
            raise job_timeout(known, given or 0.0)
        return known.outcome

    async def close(self) -> None:
        """End the waiting and the connections."""
        await self.listener.close()
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()


class AsyncJobHandle:
    """A job, as `headrace.JobHandle`."""

    def __init__(self, link: AsyncSession, job: str, model: str | None = None, *, own: bool = False) -> None:
        #: The id of the job.
        self.id = job
        #: The model it was sent to; None where only the id is known.
        self.model = model
        #: Whether this client submitted it, under an id of its own making.
        self.own = own
        self._session = link
        self._outcome: Outcome | None = None

    @property
    def has_outcome(self) -> bool:
        """Whether the handle holds the outcome, without asking Redis."""
        return self._outcome is not None

    def set_outcome(self, outcome: Outcome) -> None:
        """Hold the outcome that was waited for elsewhere."""
        self._outcome = outcome

    async def status(self) -> Status:
        """Where the job is now."""
        if self._outcome is None:
            known = await self._session.run(self._session.inspector.read_state(self.id))
            self.model = self.model or known.model
            self._outcome = known.outcome
            return known.status
        return status_of(self._outcome)

    async def done(self) -> bool:
        """Whether the job has its outcome."""
        await self.status()
        return self._outcome is not None

    async def outcome(self, timeout: float | None = None) -> Outcome:  # noqa: ASYNC109  # as JobHandle's
        """Wait for the outcome; see `JobHandle.outcome`."""
        if self._outcome is None:
            self._outcome = await self._session.outcome(self.id, timeout)
        return self._outcome

    async def result(self, timeout: float | None = None) -> Prediction:  # noqa: ASYNC109  # as JobHandle's
        """Wait for the prediction; see `JobHandle.result`."""
        return (await self.outcome(timeout)).get()

    async def cancel(self) -> bool:
        """Cancel the job; see `JobHandle.cancel`."""
        return await self._session.run(
            publish.cancel(self._session.keys, self.id, ttl=self._session.settings.result_ttl, now=utc_now())
        )

    async def explain(self) -> Timeline:
        """What became of the job so far; see `JobHandle.explain`."""
        return await self._session.run(self._session.inspector.explain(self.id))

    def __repr__(self) -> str:
        return f"<AsyncJobHandle {self.id}{f' of {self.model}' if self.model else ''}>"


class AsyncClient:
    """`headrace.Client` for asyncio: the same arguments, errors and promises. An async context manager.

    It belongs to the loop it is first used in; make one for each.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None, check: bool = True) -> None:
        self._session = AsyncSession(settings_of(url, settings), check=check)

    async def submit(
        self,
        model: str,
        instance: Any = None,
        *,
        instances: Iterable[Any] | None = None,
        id: str | None = None,  # noqa: A002  # the word users know
        **options: Unpack[JobOptions],
    ) -> AsyncJobHandle:
        """Enqueue a job; see `Client.submit`."""
        now = utc_now()
        wanted = parse_options(model, options, now)
        job = await self._session.run(
            self._session.submitter.submit(wanted, instances_from(instance, instances), id, now)
        )
        return AsyncJobHandle(self._session, job, wanted.model, own=id is None)

    async def submit_many(
        self,
        model: str,
        instances: Iterable[Any],
        *,
        ids: Iterable[str] | None = None,
        **options: Unpack[JobOptions],
    ) -> list[AsyncJobHandle]:
        """Enqueue a job for each instance; see `Client.submit_many`."""
        now = utc_now()
        wanted = parse_options(model, options, now)
        jobs = await self._session.run(
            self._session.submitter.submit_many(wanted, iterate_instances(instances), ids, now)
        )
        return [AsyncJobHandle(self._session, job, wanted.model, own=ids is None) for job in jobs]

    async def predict(
        self,
        model: str,
        instance: Any = None,
        *,
        instances: Iterable[Any] | None = None,
        timeout: float | None = 30.0,  # noqa: ASYNC109  # as Client's
        id: str | None = None,  # noqa: A002  # as above
        **options: Unpack[JobOptions],
    ) -> Prediction:
        """Submit, and wait for the prediction; see `Client.predict`."""
        deadline = Deadline(timeout)
        now = utc_now()
        wanted, given = parse_options(model, options, now), instances_from(instance, instances)
        if id is not None:
            job = check_job_id(id)
            await self._session.run(self._session.submitter.submit(wanted, given, job, now), deadline.left())
            return await AsyncJobHandle(self._session, job, wanted.model).result(deadline.left())
        # Nobody can have told of a fresh id before it is submitted: no look is needed, only this order.
        job = new_id()
        async with self._session.listener.subscribe([job], look=False, own=[job]) as watch:
            ready = await watch.ready(deadline.left_or(self._session.settings.connect_timeout))
            await self._session.run(self._session.submitter.submit(wanted, given, job, now), deadline.left())
            arrived = await watch.next(deadline.left_or(SOON)) if ready else None
        if arrived is not None:
            return arrived[1].get()
        return await AsyncJobHandle(self._session, job, wanted.model).result(deadline.left())

    def as_completed(
        self, jobs: Iterable[AsyncJobHandle], timeout: float | None = None
    ) -> AsyncIterator[AsyncJobHandle]:
        """The jobs as they end (`async for`); see `Client.as_completed`."""
        return self._as_completed(list(jobs), Deadline(timeout))

    async def _as_completed(self, jobs: list[AsyncJobHandle], deadline: Deadline) -> AsyncIterator[AsyncJobHandle]:
        waited: dict[str, AsyncJobHandle] = {}
        # Further handles of one job.
        others: dict[str, list[AsyncJobHandle]] = {}
        for job in jobs:
            if job.has_outcome:
                yield job
            elif job.id in waited:
                others.setdefault(job.id, []).append(job)
            else:
                waited[job.id] = job
        own = in_bulk({name for name, job in waited.items() if job.own})
        async with self._session.listener.subscribe(waited, own=own) as watch:
            while waited:
                arrived = await watch.next(deadline.left())
                if arrived is None:
                    if self._session.listener.error is not None:
                        raise self._session.listener.error
                    raise jobs_timeout(set(waited), len(jobs), deadline.timeout or 0.0)
                name, outcome = arrived
                for job in (waited.pop(name), *others.pop(name, ())):
                    job.set_outcome(outcome)
                    yield job

    def job(self, id: str) -> AsyncJobHandle:  # noqa: A002  # as above
        """The job of an id; see `Client.job`."""
        return AsyncJobHandle(self._session, check_job_id(id))

    async def contract(self, model: str, version: str | None = None) -> Contract:
        """The contract of a version of a model; see `Client.contract`."""
        name, version = split_version(model, version)
        return await self._session.run(self._session.contracts.named(check_model_name(name), version, utc_now()))

    async def models(self) -> list[str]:
        """The models a worker has published a contract of, sorted."""
        return await self._session.run(published.list_models(self._session.keys))

    async def queues(self) -> list[QueueDepth]:
        """What waits in the queue of each of these models."""
        return await self._session.run(queues.read_queues(self._session.keys))

    @property
    def dead_letters(self) -> AsyncDeadLetters:
        """The jobs that failed for good; see `Client.dead_letters`."""
        return AsyncDeadLetters(self._session)

    async def close(self) -> None:
        """Close the connections; see `Client.close`."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
