"""`client.dead_letters`: look at dead letters, replay, purge and export them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Unpack

from headrace.client.session import Link
from headrace.clock import utc_now
from headrace.dead_letters.bulk import Sweep, Tally
from headrace.dead_letters.filter import LetterFilter
from headrace.dead_letters.groups import Storm, Storms
from headrace.dead_letters.operations import Count, LetterPlans
from headrace.wire.dead_letter import Kept, Letter

#: Told of what a replay or purge has done, a few times a second.
OnProgress = Callable[[Tally], None]


class DeadLetters:
    """The dead letters of an installation: `client.dead_letters`. They are met oldest first.

    Letters are chosen by ids, model, reason, error, older_than and newer_than (`LetterFilter`). All methods
    raise BrokerUnavailable, and InvalidInput for a condition that cannot be.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._plans = LetterPlans(link.settings, link.keys, link.contracts, link.job_keys)

    def list(self, **which: Unpack[LetterFilter]) -> Iterator[Letter]:
        """The letters of a filter, without their messages; all of them without one."""
        search = self._plans.search(which)
        while not search.over:
            yield from self._link.do(search.next())

    def storms(self, **which: Unpack[LetterFilter]) -> tuple[Storm, ...]:
        """The letters of a filter counted by what they have in common, the largest storm first."""
        storms, search = Storms(), self._plans.search(which)
        while not search.over:
            storms.add(self._link.do(search.next()))
        return storms.found()

    def count(self) -> Count:
        """How many letters there are, and how many were dropped."""
        return self._link.do(self._plans.count())

    def show(self, id: str) -> Kept:  # noqa: A002  # the word users know
        """One letter with its message. Raises UnknownLetter."""
        return self._link.do(self._plans.show(id))

    def export(self, **which: Unpack[LetterFilter]) -> Iterator[Kept]:
        """The letters of a filter with their messages: `msgspec.json.encode` makes a line of an export of each."""
        whole = self._plans.whole(which)
        while not whole.over:
            yield from self._link.do(whole.next())

    def replay(
        self,
        *,
        version: str | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[LetterFilter],
    ) -> Tally:
        """Send the jobs of letters again under their ids; their outcomes become those of the jobs.

        To `version` where it is given, `rate` letters a second at the most. Each letter is moved back to its
        queue in one step, or stays. Without a condition `every=True` is asked for. Raises UnknownModel if a
        model has no such version.
        """
        sweep = self._plans.replay(which, utc_now(), version=version, rate=rate, dry_run=dry_run, every=every)
        return self._through(sweep, on_progress)

    def purge(
        self,
        *,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[LetterFilter],
    ) -> Tally:
        """Remove letters for good. Without a condition `every=True` is asked for."""
        return self._through(self._plans.purge(which, dry_run=dry_run, every=every), on_progress)

    def _through(self, sweep: Sweep, on_progress: OnProgress | None) -> Tally:
        while not sweep.over:
            wait = self._link.do(sweep.step(time.monotonic()))
            if on_progress is not None:
                on_progress(sweep.tally)
            time.sleep(wait)
        return sweep.tally
