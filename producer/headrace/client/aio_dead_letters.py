"""`DeadLetters` for asyncio: the same names with await, the same plans."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Unpack

from headrace.client.dead_letters import OnProgress
from headrace.clock import utc_now
from headrace.dead_letters.bulk import BulkOperation, BulkResult
from headrace.dead_letters.filter import DeadLetterFilter
from headrace.dead_letters.groups import DeadLetterGroup, DeadLetterGroups
from headrace.dead_letters.operations import DeadLetterCount, DeadLetterOperations
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage

if TYPE_CHECKING:
    from headrace.client.aio_client import AsyncSession


class AsyncDeadLetters:
    """The dead letters of an installation: `client.dead_letters` of an AsyncClient; see `DeadLetters`."""

    def __init__(self, link: AsyncSession) -> None:
        self._session = link
        self._operations = DeadLetterOperations(link.settings, link.keys, link.contracts, link.job_keys)

    async def list(self, **which: Unpack[DeadLetterFilter]) -> AsyncIterator[DeadLetter]:
        """The letters of a filter (`async for`)."""
        search = self._operations.search(which)
        while not search.exhausted:
            for letter in await self._session.run(search.next()):
                yield letter

    async def groups(self, **which: Unpack[DeadLetterFilter]) -> tuple[DeadLetterGroup, ...]:
        """The letters of a filter counted by what they have in common."""
        storms, search = DeadLetterGroups(), self._operations.search(which)
        while not search.exhausted:
            storms.add(await self._session.run(search.next()))
        return storms.largest()

    async def count(self) -> DeadLetterCount:
        """How many letters there are, and how many were dropped."""
        return await self._session.run(self._operations.count())

    async def show(self, id: str) -> DeadLetterWithMessage:  # noqa: A002  # the word users know
        """One letter with its message. Raises UnknownLetter."""
        return await self._session.run(self._operations.show(id))

    async def export(self, **which: Unpack[DeadLetterFilter]) -> AsyncIterator[DeadLetterWithMessage]:
        """The letters of a filter with their messages (`async for`)."""
        whole = self._operations.search_with_messages(which)
        while not whole.exhausted:
            for letter in await self._session.run(whole.next()):
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
        """Send the jobs of letters again; see `DeadLetters.replay`."""
        sweep = self._operations.replay(which, utc_now(), version=version, rate=rate, dry_run=dry_run, every=every)
        return await self._through(sweep, on_progress)

    async def purge(
        self,
        *,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """Remove letters for good; see `DeadLetters.purge`."""
        return await self._through(self._operations.purge(which, dry_run=dry_run, every=every), on_progress)

    async def _through(self, sweep: BulkOperation, on_progress: OnProgress | None) -> BulkResult:
        while not sweep.finished:
            wait = await self._session.run(sweep.step(time.monotonic()))
            if on_progress is not None:
                on_progress(sweep.result)
            await asyncio.sleep(wait)
        return sweep.result
