"""`client.dead_letters`: look at dead letters, replay, purge and export them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Unpack

from headrace.client.session import Session
from headrace.clock import utc_now
from headrace.dead_letters.bulk import BulkOperation, BulkResult
from headrace.dead_letters.filter import DeadLetterFilter
from headrace.dead_letters.groups import DeadLetterGroup, DeadLetterGroups
from headrace.dead_letters.operations import DeadLetterCount, DeadLetterOperations
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage

#: Told of what a replay or purge has done, a few times a second.
OnProgress = Callable[[BulkResult], None]


class DeadLetters:
    """The dead letters of an installation: `client.dead_letters`. They are met oldest first.

    Letters are chosen by ids, model, reason, error, older_than and newer_than (`DeadLetterFilter`). All methods
    raise BrokerUnavailable, and InvalidInput for a condition that cannot be.
    """

    def __init__(self, link: Session) -> None:
        self._session = link
        self._operations = DeadLetterOperations(link.settings, link.keys, link.contracts, link.job_keys)

    def list(self, **which: Unpack[DeadLetterFilter]) -> Iterator[DeadLetter]:
        """The letters of a filter, without their messages; all of them without one."""
        search = self._operations.search(which)
        while not search.exhausted:
            yield from self._session.run(search.next())

    def groups(self, **which: Unpack[DeadLetterFilter]) -> tuple[DeadLetterGroup, ...]:
        """The letters of a filter counted by what they have in common, the largest storm first."""
        storms, search = DeadLetterGroups(), self._operations.search(which)
        while not search.exhausted:
            storms.add(self._session.run(search.next()))
        return storms.largest()

    def count(self) -> DeadLetterCount:
        """How many letters there are, and how many were dropped."""
        return self._session.run(self._operations.count())

    def show(self, id: str) -> DeadLetterWithMessage:  # noqa: A002  # the word users know
        """One letter with its message. Raises UnknownLetter."""
        return self._session.run(self._operations.show(id))

    def export(self, **which: Unpack[DeadLetterFilter]) -> Iterator[DeadLetterWithMessage]:
        """The letters of a filter with their messages: `msgspec.json.encode` makes a line of an export of each."""
        whole = self._operations.search_with_messages(which)
        while not whole.exhausted:
            yield from self._session.run(whole.next())

    def replay(
        self,
        *,
        version: str | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """Send the jobs of letters again under their ids; their outcomes become those of the jobs.

        To `version` where it is given, `rate` letters a second at the most. Each letter is moved back to its
        queue in one step, or stays. Without a condition `every=True` is asked for. Raises UnknownModel if a
        model has no such version.
        """
        sweep = self._operations.replay(which, utc_now(), version=version, rate=rate, dry_run=dry_run, every=every)
        return self._through(sweep, on_progress)

    def purge(
        self,
        *,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """Remove letters for good. Without a condition `every=True` is asked for."""
        return self._through(self._operations.purge(which, dry_run=dry_run, every=every), on_progress)

    def _through(self, sweep: BulkOperation, on_progress: OnProgress | None) -> BulkResult:
        while not sweep.finished:
            wait = self._session.run(sweep.step(time.monotonic()))
            if on_progress is not None:
                on_progress(sweep.result)
            time.sleep(wait)
        return sweep.result
