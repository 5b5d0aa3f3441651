"""`client.dead_letters`: list, show, export, replay and purge dead letters."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Unpack

from headrace.client.aio.connections import sleep
from headrace.client.aio.session import AsyncSession
from headrace.client.common import OnProgress
from headrace.clock import utc_now
from headrace.dead_letters.bulk import BulkOperation, BulkResult
from headrace.dead_letters.filter import DeadLetterFilter
from headrace.dead_letters.groups import DeadLetterGroup, DeadLetterGroups
from headrace.dead_letters.operations import DeadLetterCount, DeadLetterOperations
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage


class AsyncDeadLetters:
    """The dead letters of an installation, oldest first: `client.dead_letters`.

    A filter selects letters by ids, model, reason, error, older_than and newer_than (`DeadLetterFilter`). All
    methods raise BrokerUnavailable, and InvalidInput for an impossible condition.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._operations = DeadLetterOperations(
            session.settings, session.keys, session.contracts, session.job_keys
        )

    async def list(self, **which: Unpack[DeadLetterFilter]) -> AsyncIterator[DeadLetter]:
        """Yield the letters that match a filter, without their messages; all letters if there is no condition."""
        cursor = self._operations.search(which)
        while not cursor.exhausted:
            for letter in await self._session.run(cursor.next()):
                yield letter

    async def groups(self, **which: Unpack[DeadLetterFilter]) -> tuple[DeadLetterGroup, ...]:
        """Count the letters that match a filter by their common features, the largest group first."""
        groups, cursor = DeadLetterGroups(), self._operations.search(which)
        while not cursor.exhausted:
            groups.add(await self._session.run(cursor.next()))
        return groups.largest()

    async def count(self) -> DeadLetterCount:
        """Return how many letters are stored, and how many were dropped."""
        return await self._session.run(self._operations.count())

    async def show(self, id: str) -> DeadLetterWithMessage:  # noqa: A002  # the word users know
        """Return one letter with its message. Raises UnknownLetter."""
        return await self._session.run(self._operations.read(id))

    async def export(self, **which: Unpack[DeadLetterFilter]) -> AsyncIterator[DeadLetterWithMessage]:
        """Yield the letters that match a filter, with their messages. Write each with `msgspec.json.encode`."""
        cursor = self._operations.search_with_messages(which)
        while not cursor.exhausted:
            for letter in await self._session.run(cursor.next()):
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
        """Send the jobs of letters again under their ids; their new outcomes replace the failures.

        They run on `version`, if it is not None; at most `rate` letters are replayed a second. Each letter is
        moved back to its queue in one step, or stays. Without a condition, `every=True` is required. Raises
        UnknownModel if a model has no such version.
        """
        operation = self._operations.replay(
            which, utc_now(), version=version, rate=rate, dry_run=dry_run, every=every
        )
        return await self._run_steps(operation, on_progress)

    async def purge(
        self,
        *,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """Remove letters for good. Without a condition, `every=True` is required."""
        return await self._run_steps(self._operations.purge(which, dry_run=dry_run, every=every), on_progress)

    async def _run_steps(self, operation: BulkOperation, on_progress: OnProgress | None) -> BulkResult:
        while not operation.finished:
            pause = await self._session.run(operation.step(time.monotonic()))
            if on_progress is not None:
                on_progress(operation.result)
            await sleep(pause)
        return operation.result
