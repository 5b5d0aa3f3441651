"""`DeadLetters` for asyncio: the same names with await, the same plans."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Unpack

from headrace.client.dead_letters import OnProgress
from headrace.clock import utc_now
from headrace.dead_letters.bulk import Sweep, Tally
from headrace.dead_letters.filter import LetterFilter
from headrace.dead_letters.groups import Storm, Storms
from headrace.dead_letters.operations import Count, LetterPlans
from headrace.wire.dead_letter import Kept, Letter

if TYPE_CHECKING:
    from headrace.client.aio_client import AsyncLink


class AsyncDeadLetters:
    """The dead letters of an installation: `client.dead_letters` of an AsyncClient; see `DeadLetters`."""

    def __init__(self, link: AsyncLink) -> None:
        self._link = link
        self._plans = LetterPlans(link.settings, link.keys, link.contracts, link.job_keys)

    async def list(self, **which: Unpack[LetterFilter]) -> AsyncIterator[Letter]:
        """The letters of a filter (`async for`)."""
        search = self._plans.search(which)
        while not search.over:
            for letter in await self._link.do(search.next()):
                yield letter

    async def storms(self, **which: Unpack[LetterFilter]) -> tuple[Storm, ...]:
        """The letters of a filter counted by what they have in common."""
        storms, search = Storms(), self._plans.search(which)
        while not search.over:
            storms.add(await self._link.do(search.next()))
        return storms.found()

    async def count(self) -> Count:
        """How many letters there are, and how many were dropped."""
        return await self._link.do(self._plans.count())

    async def show(self, id: str) -> Kept:  # noqa: A002  # the word users know
        """One letter with its message. Raises UnknownLetter."""
        return await self._link.do(self._plans.show(id))

    async def export(self, **which: Unpack[LetterFilter]) -> AsyncIterator[Kept]:
        """The letters of a filter with their messages (`async for`)."""
        whole = self._plans.whole(which)
        while not whole.over:
            for letter in await self._link.do(whole.next()):
                yield letter

    async def replay(
        self,
        *,
        version: str | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[LetterFilter],
    ) -> Tally:
        """Send the jobs of letters again; see `DeadLetters.replay`."""
        sweep = self._plans.replay(which, utc_now(), version=version, rate=rate, dry_run=dry_run, every=every)
        return await self._through(sweep, on_progress)

    async def purge(
        self,
        *,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[LetterFilter],
    ) -> Tally:
        """Remove letters for good; see `DeadLetters.purge`."""
        return await self._through(self._plans.purge(which, dry_run=dry_run, every=every), on_progress)

    async def _through(self, sweep: Sweep, on_progress: OnProgress | None) -> Tally:
        while not sweep.over:
            wait = await self._link.do(sweep.step(time.monotonic()))
            if on_progress is not None:
                on_progress(sweep.tally)
            await asyncio.sleep(wait)
        return sweep.tally
