"""The handles of an `AsyncInMemoryClient`: each awaits nothing, and asks the blocking handle."""

# ruff: noqa: ASYNC109  # the methods have the timeouts of the real handles

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Unpack

from headrace.bulk.explain import RunExplanation
from headrace.bulk.progress import RunFailures
from headrace.client.common import OnProgress
from headrace.dead_letters.bulk import BulkResult
from headrace.dead_letters.filter import DeadLetterFilter
from headrace.dead_letters.groups import DeadLetterGroup
from headrace.dead_letters.operations import DeadLetterCount
from headrace.inspection.timeline import Timeline
from headrace.testing.dead_letters import InMemoryDeadLetters
from headrace.testing.job import InMemoryJob
from headrace.testing.runs import InMemoryRun
from headrace.wire.bulk import RunProgress
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage
from headrace.wire.outcome import Outcome, Prediction, Status


class AsyncInMemoryJob:
    """A job of an AsyncInMemoryClient, with the methods of `headrace.AsyncJobHandle`. It never waits."""

    def __init__(self, job: InMemoryJob) -> None:
        self.id, self.model = job.id, job.model
        self._job = job

    async def status(self, timeout: float | None = None) -> Status:
        """Return the status of the job; see `AsyncJobHandle.status`."""
        return self._job.status(timeout)

    async def done(self, timeout: float | None = None) -> bool:
        """Return True if the job has its outcome."""
        return self._job.done(timeout)

    async def outcome(self, timeout: float | None = None) -> Outcome:
        """Return the outcome. Raises ResultTimeout at once if there is none yet."""
        return self._job.outcome(timeout)

    async def result(self, timeout: float | None = None) -> Prediction:
        """Return the prediction; see `AsyncJobHandle.result`."""
        return self._job.result(timeout)

    async def cancel(self, timeout: float | None = 5.0, *, unknown: bool = False) -> bool:
        """Cancel the job; see `AsyncJobHandle.cancel`."""
        return self._job.cancel(timeout, unknown=unknown)

    async def explain(self, timeout: float | None = None) -> Timeline:
        """Return the history of the job: only its outcome, if it has one."""
        return self._job.explain(timeout)

    def __repr__(self) -> str:
        return f"<AsyncInMemoryJob {self.id}{f' of {self.model}' if self.model else ''}>"


class AsyncInMemoryRun:
    """A bulk run of an AsyncInMemoryClient, with the methods of `headrace.AsyncRunHandle`. It never waits."""

    def __init__(self, run: InMemoryRun) -> None:
        self.name = run.name
        self._run = run

    async def status(self, timeout: float | None = None) -> RunProgress:
        """Return what is known of the run; see `AsyncRunHandle.status`."""
        return self._run.status(timeout)

    async def wait(
        self, timeout: float | None = None, *, on_progress: Callable[[RunProgress], None] | None = None
    ) -> RunProgress:
        """Return the progress of the run; see `AsyncRunHandle.wait`. Raises ResultTimeout if it has not ended."""
        return self._run.wait(timeout, on_progress=on_progress)

    async def cancel(self, timeout: float | None = None) -> bool:
        """Cancel the run; see `AsyncRunHandle.cancel`."""
        return self._run.cancel(timeout)

    async def resume(self, timeout: float | None = None) -> bool:
        """Continue the run; see `AsyncRunHandle.resume`."""
        return self._run.resume(timeout)

    async def failures(self, timeout: float | None = None) -> RunFailures:
        """Return the failures of the run, of which there are none; see `AsyncRunHandle.failures`."""
        return self._run.failures(timeout)

    async def explain(self, timeout: float | None = None) -> RunExplanation:
        """Return what is known of the run; see `AsyncRunHandle.explain`."""
        return self._run.explain(timeout)

    def __repr__(self) -> str:
        return f"<AsyncInMemoryRun {self.name}>"


class AsyncInMemoryDeadLetters:
    """Dead letters with the methods of `headrace.client.AsyncDeadLetters`."""

    def __init__(self, letters: InMemoryDeadLetters) -> None:
        self._letters = letters

    async def list(self, **which: Unpack[DeadLetterFilter]) -> AsyncIterator[DeadLetter]:
        """Yield the letters that match a filter; see `AsyncDeadLetters.list`."""
        for letter in self._letters.list(**which):
            yield letter

    async def groups(self, **which: Unpack[DeadLetterFilter]) -> tuple[DeadLetterGroup, ...]:
        """Count letters by their common features; see `AsyncDeadLetters.groups`."""
        return self._letters.groups(**which)

    async def count(self) -> DeadLetterCount:
        """Return how many letters are stored; none is ever dropped."""
        return self._letters.count()

    async def show(self, id: str) -> DeadLetterWithMessage:  # noqa: A002  # the word users know
        """Return one letter; see `AsyncDeadLetters.show`."""
        return self._letters.show(id)

    async def export(self, **which: Unpack[DeadLetterFilter]) -> AsyncIterator[DeadLetterWithMessage]:
        """Yield the letters that match a filter, with their messages; see `AsyncDeadLetters.export`."""
        for letter in self._letters.export(**which):
            yield letter

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
        """Replay letters; see `AsyncDeadLetters.replay`."""
        return self._letters.replay(
            version=version, rate=rate, dry_run=dry_run, every=every, on_progress=on_progress, **which
        )

    async def purge(
        self,
        *,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """Remove letters for good; see `AsyncDeadLetters.purge`."""
        return self._letters.purge(dry_run=dry_run, every=every, on_progress=on_progress, **which)
