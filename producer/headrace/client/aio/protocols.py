"""The types of a client that a program is written against: the real client and the in-memory one both have them.

The clients do not inherit from them: type checkers compare the methods (`tests/unit/client/test_types.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, Unpack

from headrace.bulk.explain import RunExplanation
from headrace.bulk.progress import RunFailures
from headrace.catalog.contract import Contract
from headrace.catalog.pauses import Pause
from headrace.client.common import OnProgress
from headrace.dead_letters.bulk import BulkResult
from headrace.dead_letters.filter import DeadLetterFilter
from headrace.dead_letters.groups import DeadLetterGroup
from headrace.dead_letters.operations import DeadLetterCount
from headrace.inspection.queues import QueueDepth
from headrace.inspection.timeline import Timeline
from headrace.results.listening import FinishedJob
from headrace.results.purge import PurgeResult
from headrace.submit.options import JobOptions
from headrace.wire.bulk import RunProgress
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage
from headrace.wire.outcome import Outcome, Prediction, Status


class AnyAsyncJobHandle(Protocol):
    """A job; see `AsyncJobHandle`."""

    #: The id of the job.
    id: str
    #: The model it was sent to; None if only the id is known.
    model: str | None

    async def status(self, timeout: float | None = None) -> Status:
        """Return the status of the job."""

    async def done(self, timeout: float | None = None) -> bool:
        """Return True if the job has its outcome."""

    async def outcome(self, timeout: float | None = None) -> Outcome:
        """Wait for the outcome."""

    async def result(self, timeout: float | None = None) -> Prediction:
        """Wait for the prediction."""

    async def cancel(self, timeout: float | None = 5.0, *, unknown: bool = False) -> bool:
        """Cancel the job."""

    async def explain(self, timeout: float | None = None) -> Timeline:
        """Return the history of the job."""


J = TypeVar("J", bound=AnyAsyncJobHandle)


class AnyAsyncRunHandle(Protocol):
    """A bulk run; see `AsyncRunHandle`."""

    #: The name of the run.
    name: str

    async def status(self, timeout: float | None = None) -> RunProgress:
        """Return what is known of the run."""

    async def wait(
        self, timeout: float | None = None, *, on_progress: Callable[[RunProgress], None] | None = None
    ) -> RunProgress:
        """Wait for the end of the run."""

    async def cancel(self, timeout: float | None = None) -> bool:
        """Cancel the run."""

    async def resume(self, timeout: float | None = None) -> bool:
        """Continue the run."""

    async def failures(self, timeout: float | None = None) -> RunFailures:
        """Return why rows failed."""

    async def explain(self, timeout: float | None = None) -> RunExplanation:
        """Return what is known of the run, and what it waits for."""


class AnyAsyncDeadLetters(Protocol):
    """The dead letters of a client; see `AsyncDeadLetters`."""

    def list(self, **which: Unpack[DeadLetterFilter]) -> AsyncIterator[DeadLetter]:
        """Yield the letters that match a filter."""

    async def groups(self, **which: Unpack[DeadLetterFilter]) -> tuple[DeadLetterGroup, ...]:
        """Count letters by their common features."""

    async def count(self) -> DeadLetterCount:
        """Return how many letters are stored."""

    async def show(self, id: str) -> DeadLetterWithMessage:  # noqa: A002  # the word users know
        """Return one letter."""

    def export(self, **which: Unpack[DeadLetterFilter]) -> AsyncIterator[DeadLetterWithMessage]:
        """Yield the letters that match a filter, with their messages."""

    async def replay(
        self,
        *,
        version: str | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """Send the jobs of letters again."""

    async def purge(
        self,
        *,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """Remove letters for good."""


class AnyAsyncListener(Protocol):
    """The ended jobs of a name; see `AsyncListener`."""

    @property
    def name(self) -> str:
        """The name under which the jobs were submitted."""

    def stop(self) -> None:
        """End the iteration when the job in hand has been handled."""

    async def fail(self, error: str) -> None:
        """Let the job in hand be delivered again later."""

    async def close(self) -> None:
        """Let other listeners have the rest."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> FinishedJob: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class AnyAsyncClient(Protocol):
    """A client; see `AsyncClient`."""

    async def submit(
        self,
        model: str,
        instance: Any = None,
        *,
        instances: Iterable[Any] | None = None,
        id: str | None = None,  # noqa: A002  # as above
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> AnyAsyncJobHandle:
        """Enqueue a job, and return at once."""

    async def submit_many(
        self,
        model: str,
        instances: Iterable[Any],
        *,
        ids: Iterable[str] | None = None,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Sequence[AnyAsyncJobHandle]:
        """Enqueue a job for each instance."""

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
        """Submit a job and wait for its prediction."""

    def listen(
        self, name: str, *, lease: float = 60.0, max_deliveries: int = 8, idle: float | None = None
    ) -> AnyAsyncListener:
        """Return an iterator over the jobs that have ended under a name."""

    async def run_listeners(self, *names: str) -> None:
        """Call the handlers that `on_outcome` registered."""

    def as_completed(
        self, jobs: Iterable[J], timeout: float | None = None, *, forget: bool = False
    ) -> AsyncIterator[J]:
        """Yield the jobs as they finish."""

    async def forget(self, jobs: Iterable[AnyAsyncJobHandle], *, timeout: float | None = None) -> int:
        """Delete the outcomes of those jobs that succeeded."""

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
    ) -> AnyAsyncRunHandle:
        """Submit a bulk run."""

    def bulk_run(self, name: str) -> AnyAsyncRunHandle:
        """Return the handle of a bulk run by its name."""

    async def bulk_runs(
        self, model: str | None = None, *, limit: int = 100, timeout: float | None = None
    ) -> list[RunProgress]:
        """Return the newest bulk runs."""

    def job(self, id: str) -> AnyAsyncJobHandle:  # noqa: A002  # as above
        """Return the handle of a job by its id."""

    async def contract(self, model: str, version: str | None = None, *, timeout: float | None = None) -> Contract:
        """Return the contract of a version."""

    async def accepted_columns(self, model: str, *, timeout: float | None = None) -> frozenset[str]:
        """Return the forms in which all workers of a model take instances in columns."""

    async def models(self, *, timeout: float | None = None) -> list[str]:
        """Return the names of the models."""

    async def queues(self, *, timeout: float | None = None) -> list[QueueDepth]:
        """Return the depth of the queue of each model."""

    async def pause(self, model: str, *, reason: str = "", timeout: float | None = None) -> Pause:
        """Pause a model."""

    async def resume(self, model: str, *, timeout: float | None = None) -> bool:
        """End the pause of a model."""

    async def purge_queue(
        self, model: str, *, on_progress: Callable[[PurgeResult], None] | None = None
    ) -> PurgeResult:
        """Empty the queue of a model."""

    @property
    def dead_letters(self) -> AnyAsyncDeadLetters:
        """The jobs that failed for good."""

    async def close(self) -> None:
        """Close the connections."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
