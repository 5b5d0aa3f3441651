"""`AsyncInMemoryClient`: the methods of `headrace.AsyncClient` without Redis, on top of an `InMemoryClient`."""

# ruff: noqa: ASYNC109  # the methods have the timeouts of the real client

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from headrace.catalog.contract import Contract
from headrace.catalog.pauses import Pause
from headrace.client.aio.protocols import AnyAsyncJobHandle
from headrace.client.common import check_timeout
from headrace.client.handlers import select_handlers
from headrace.inspection.queues import QueueDepth
from headrace.results.purge import PurgeResult
from headrace.settings import Settings
from headrace.submit.options import JobOptions
from headrace.testing.aio_handles import AsyncInMemoryDeadLetters, AsyncInMemoryJob, AsyncInMemoryRun
from headrace.testing.client import InMemoryClient
from headrace.testing.listening import AsyncInMemoryListener
from headrace.testing.models import Model
from headrace.wire.bulk import RunProgress
from headrace.wire.message import Job
from headrace.wire.outcome import Prediction

J = TypeVar("J", bound=AnyAsyncJobHandle)


class AsyncInMemoryClient:
    """An asyncio client whose models are functions, contracts, or packaged versions; see `InMemoryClient`.

    `blocking` is the client behind it: jobs that are submitted to either are jobs of both.
    """

    def __init__(
        self,
        models: Mapping[str, Model] | None = None,
        *,
        contracts: Iterable[Contract] = (),
        settings: Settings | None = None,
        at_once: bool = True,
        blocking: InMemoryClient | None = None,
    ) -> None:
        #: The blocking client with the same jobs: `blocking`, or a new one of these arguments.
        self.blocking = blocking or InMemoryClient(
            models or {}, contracts=contracts, settings=settings, at_once=at_once
        )

    @property
    def submitted(self) -> list[Job]:
        """Every job, in the order of submission."""
        return self.blocking.submitted

    async def submit(
        self,
        model: str,
        instance: Any = None,
        *,
        instances: Iterable[Any] | None = None,
        id: str | None = None,  # noqa: A002  # the word users know
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncInMemoryJob:
        """Submit a job; see `AsyncClient.submit`."""
        job = self.blocking.submit(model, instance, instances=instances, id=id, timeout=timeout, **options)
        return AsyncInMemoryJob(job)

    async def submit_many(
        self,
        model: str,
        instances: Iterable[Any],
        *,
        ids: Iterable[str] | None = None,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> list[AsyncInMemoryJob]:
        """Submit a job for each instance; see `AsyncClient.submit_many`."""
        jobs = self.blocking.submit_many(model, instances, ids=ids, timeout=timeout, **options)
        return [AsyncInMemoryJob(job) for job in jobs]

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
        """Submit a job and return its prediction; see `AsyncClient.predict`."""
        return self.blocking.predict(model, instance, instances=instances, timeout=timeout, id=id, **options)

    def listen(
        self, name: str, *, lease: float = 60.0, max_deliveries: int = 8, idle: float | None = None
    ) -> AsyncInMemoryListener:
        """Return an iterator over the jobs that have ended under a name; see `InMemoryClient.listen`."""
        return AsyncInMemoryListener(
            self.blocking.listen(name, lease=lease, max_deliveries=max_deliveries, idle=idle)
        )

    async def run_listeners(self, *names: str) -> None:
        """Call the handlers that `on_outcome` registered with the jobs that have ended, and return.

        An error of a handler is raised.
        """
        for handler in select_handlers(names, is_async=True):
            async with self.listen(handler.name) as listener:
                async for job in listener:
                    await handler.function(job)

    def as_completed(
        self, jobs: Iterable[J], timeout: float | None = None, *, forget: bool = False
    ) -> AsyncIterator[J]:
        """Yield finished jobs, then raise ResultTimeout at once if there are others; see `AsyncClient`."""
        return self._as_completed(list(jobs), check_timeout(timeout), forget=forget)

    async def _as_completed(self, jobs: list[J], seconds: float | None, *, forget: bool) -> AsyncIterator[J]:
        finished = [job for job in jobs if await job.done()]
        for job in (*finished, *(job for job in jobs if job not in finished)):
            await job.outcome(seconds)
            yield job
            if forget:
                await self.forget([job])

    async def forget(self, jobs: Iterable[AnyAsyncJobHandle], *, timeout: float | None = None) -> int:
        """Delete the outcomes of those jobs that succeeded; see `AsyncClient.forget`."""
        return self.blocking.forget([self.blocking.job(job.id) for job in jobs], timeout=timeout)

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
    ) -> AsyncInMemoryRun:
        """Submit a bulk run, which reads and writes no file; see `AsyncClient.bulk`."""
        run = self.blocking.bulk(
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
            timeout=timeout,
        )
        return AsyncInMemoryRun(run)

    def bulk_run(self, name: str) -> AsyncInMemoryRun:
        """Return the handle of a bulk run by its name; see `AsyncClient.bulk_run`."""
        return AsyncInMemoryRun(self.blocking.bulk_run(name))

    async def bulk_runs(
        self, model: str | None = None, *, limit: int = 100, timeout: float | None = None
    ) -> list[RunProgress]:
        """Return the newest bulk runs; see `AsyncClient.bulk_runs`."""
        return self.blocking.bulk_runs(model, limit=limit, timeout=timeout)

    def run(self) -> int:
        """Run the waiting jobs and bulk runs, and return the number of jobs; see `InMemoryClient.run`."""
        return self.blocking.run()

    def job(self, id: str) -> AsyncInMemoryJob:  # noqa: A002  # as above
        """Return the handle of a job by its id; see `AsyncClient.job`."""
        return AsyncInMemoryJob(self.blocking.job(id))

    async def contract(self, model: str, version: str | None = None, *, timeout: float | None = None) -> Contract:
        """Return the contract of a model; see `AsyncClient.contract`."""
        return self.blocking.contract(model, version, timeout=timeout)

    async def accepted_columns(self, model: str, *, timeout: float | None = None) -> frozenset[str]:
        """Return the forms of instances in columns that it takes: all; see `AsyncClient.accepted_columns`."""
        return self.blocking.accepted_columns(model, timeout=timeout)

    async def models(self, *, timeout: float | None = None) -> list[str]:
        """Return the names of the models of this client, sorted."""
        return self.blocking.models(timeout=timeout)

    async def queues(self, *, timeout: float | None = None) -> list[QueueDepth]:
        """Return the depth of the queue of each model; see `AsyncClient.queues`."""
        return self.blocking.queues(timeout=timeout)

    async def pause(self, model: str, *, reason: str = "", timeout: float | None = None) -> Pause:
        """Pause a model: its jobs wait; see `AsyncClient.pause`."""
        return self.blocking.pause(model, reason=reason, timeout=timeout)

    async def resume(self, model: str, *, timeout: float | None = None) -> bool:
        """End the pause of a model, and run its jobs; see `AsyncClient.resume`."""
        return self.blocking.resume(model, timeout=timeout)

    async def purge_queue(
        self, model: str, *, on_progress: Callable[[PurgeResult], None] | None = None
    ) -> PurgeResult:
        """Cancel the waiting jobs of a model; see `AsyncClient.purge_queue`."""
        return self.blocking.purge_queue(model, on_progress=on_progress)

    @property
    def dead_letters(self) -> AsyncInMemoryDeadLetters:
        """The jobs that failed for good; see `AsyncClient.dead_letters`."""
        return AsyncInMemoryDeadLetters(self.blocking.dead_letters)

    async def close(self) -> None:
        """Do nothing: there is no connection to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
