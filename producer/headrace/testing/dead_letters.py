"""The dead letters of an `InMemoryClient`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Unpack

import msgspec

from headrace.client.common import OnProgress
from headrace.clock import utc_now
from headrace.dead_letters.bulk import BulkResult
from headrace.dead_letters.filter import CheckedFilter, DeadLetterFilter, parse_filter, require_filter
from headrace.dead_letters.groups import DeadLetterGroup, DeadLetterGroups
from headrace.dead_letters.operations import DeadLetterCount, check_version
from headrace.errors import UnknownLetter
from headrace.wire.attempts import REPLAY, Attempt
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage, attach_message
from headrace.wire.keys import queue_name
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure

_HERE = "in memory"


class InMemoryDeadLetters:
    """As `headrace.client.dead_letters.DeadLetters`; a rate is not kept."""

    def __init__(self, run_again: Callable[[Job], None]) -> None:
        self._run_again = run_again
        self._letters: dict[str, DeadLetterWithMessage] = {}
        self._jobs: dict[str, Job] = {}
        self._attempts: dict[str, tuple[Attempt, ...]] = {}

    def store(self, job: Job, failure: Failure, version: str) -> None:
        """Keep a job that failed for good; for the client."""
        letter = DeadLetter(
            id=job.id,
            model=job.model,
            version=version,
            queue=queue_name(job.model),
            reason=failure.reason,
            error=failure.error,
            module=failure.module,
            message=failure.message,
            instances=len(job.instances),
            worker=_HERE,
            died_ms=_ms(utc_now()),
            attempts=self._attempts.get(job.id, ()),
            metadata=job.metadata,
        )
        self._jobs[job.id] = job
        self._letters.pop(job.id, None)
        self._letters[job.id] = attach_message(letter, encode_message(job))

    def list(self, **which: Unpack[DeadLetterFilter]) -> Iterator[DeadLetter]:
        """As `DeadLetters.list`."""
        return iter(self._found(parse_filter(which))[0])

    def groups(self, **which: Unpack[DeadLetterFilter]) -> tuple[DeadLetterGroup, ...]:
        """As `DeadLetters.storms`."""
        storms = DeadLetterGroups()
        storms.add(self._found(parse_filter(which))[0])
        return storms.largest()

    def count(self) -> DeadLetterCount:
        """As `DeadLetters.count`; none is ever dropped."""
        return DeadLetterCount(letters=len(self._letters), dropped=0)

    def show(self, id: str) -> DeadLetterWithMessage:  # noqa: A002  # the word users know
        """As `DeadLetters.show`."""
        if id not in self._letters:
            raise UnknownLetter(f"there is no dead letter {id}; it may have been replayed or purged")
        return self._letters[id]

    def export(self, **which: Unpack[DeadLetterFilter]) -> Iterator[DeadLetterWithMessage]:
        """As `DeadLetters.export`."""
        return iter(self._found(parse_filter(which))[0])

    def replay(
        self,
        *,
        version: str | None = None,
        rate: float | None = None,  # noqa: ARG002  # there is nobody to be spared
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """As `DeadLetters.replay`: the job runs again at once, or at the next `run()` of the client."""
        version = check_version(version)

        def again(letter: DeadLetterWithMessage) -> None:
            by = Attempt(cause=REPLAY, owner=_HERE, at_ms=_ms(utc_now()), claim_size=0)
            self._attempts[letter.id] = (*letter.attempts, by)
            job = msgspec.structs.replace(self._jobs[letter.id], eta=None, expires=None)
            self._run_again(job if version is None else msgspec.structs.replace(job, version=version))

        return self._sweep(require_filter(which, every=every), again, dry_run, on_progress)

    def purge(
        self,
        *,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """As `DeadLetters.purge`."""
        return self._sweep(require_filter(which, every=every), lambda _: None, dry_run, on_progress)

    def _sweep(
        self,
        sought: CheckedFilter,
        deal: Callable[[DeadLetterWithMessage], None],
        dry_run: bool,
        on_progress: OnProgress | None,
    ) -> BulkResult:
        found, missing = self._found(sought)
        tally = BulkResult(done=len(found), missing=missing)
        for letter in () if dry_run else found:
            del self._letters[letter.id]
            deal(letter)
        if on_progress is not None:
            on_progress(tally)
        return tally

    def _found(self, sought: CheckedFilter) -> tuple[tuple[DeadLetterWithMessage, ...], tuple[str, ...]]:
        """The letters of a filter, oldest first, and the ids asked for of which there is none."""
        first, last = sought.time_range(_ms(utc_now()))
        ids = self._letters if sought.ids is None else sought.ids
        met = (self._letters[name] for name in ids if name in self._letters)
        found = tuple(one for one in met if first <= one.died_ms <= last and sought.matches(one))
        return found, tuple(name for name in ids if name not in self._letters)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
