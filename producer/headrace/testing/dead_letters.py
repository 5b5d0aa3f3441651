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
from headrace.wire.message import Job, encode_message
from headrace.wire.outcome import Failure
from headrace.wire.queues import queue_name

#: The name of the worker in dead letters and replays.
_WORKER = "in memory"


class InMemoryDeadLetters:
    """Dead letters with the methods of `headrace.client.DeadLetters`. `replay_job` enqueues a letter's job."""

    def __init__(self, replay_job: Callable[[Job], None]) -> None:
        self._replay_job = replay_job
        self._letters: dict[str, DeadLetterWithMessage] = {}
        self._jobs: dict[str, Job] = {}
        self._attempts: dict[str, tuple[Attempt, ...]] = {}

    def store(self, job: Job, failure: Failure, version: str) -> None:
        """Store a job that failed for good, for the client."""
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
            worker=_WORKER,
            died_ms=_unix_ms(utc_now()),
            attempts=self._attempts.get(job.id, ()),
            runs=1,
            metadata=job.metadata,
        )
        self._jobs[job.id] = job
        self._letters.pop(job.id, None)  # so that the letter is stored behind the others
        self._letters[job.id] = attach_message(letter, encode_message(job))

    def list(self, **which: Unpack[DeadLetterFilter]) -> Iterator[DeadLetter]:
        """Yield the letters that match a filter; see `DeadLetters.list`."""
        return iter(self._select(parse_filter(which))[0])

    def groups(self, **which: Unpack[DeadLetterFilter]) -> tuple[DeadLetterGroup, ...]:
        """Count letters by their common features; see `DeadLetters.groups`."""
        groups = DeadLetterGroups()
        groups.add(self._select(parse_filter(which))[0])
        return groups.largest()

    def count(self) -> DeadLetterCount:
        """Return how many letters are stored; none is ever dropped."""
        return DeadLetterCount(letters=len(self._letters), dropped=0)

    def show(self, id: str) -> DeadLetterWithMessage:  # noqa: A002  # the word users know
        """Return one letter; see `DeadLetters.show`."""
        if id not in self._letters:
            raise UnknownLetter(f"there is no dead letter {id}; it may have been replayed or purged")
        return self._letters[id]

    def export(self, **which: Unpack[DeadLetterFilter]) -> Iterator[DeadLetterWithMessage]:
        """Yield the letters that match a filter, with their messages; see `DeadLetters.export`."""
        return iter(self._select(parse_filter(which))[0])

    def replay(
        self,
        *,
        version: str | None = None,
        rate: float | None = None,  # noqa: ARG002  # ignored: no Redis is to be spared
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """Replay letters; see `DeadLetters.replay`.

        Their jobs run at once, or at the next `run()` of the client.
        """
        version = check_version(version)

        def replay_letter(letter: DeadLetterWithMessage) -> None:
            replay = Attempt(cause=REPLAY, owner=_WORKER, at_ms=_unix_ms(utc_now()), claim_size=0)
            self._attempts[letter.id] = (*letter.attempts, replay)
            job = msgspec.structs.replace(self._jobs[letter.id], eta=None, expires=None)
            self._replay_job(job if version is None else msgspec.structs.replace(job, version=version))

        return self._apply(replay_letter, require_filter(which, every=every), dry_run, on_progress)

    def purge(
        self,
        *,
        dry_run: bool = False,
        every: bool = False,
        on_progress: OnProgress | None = None,
        **which: Unpack[DeadLetterFilter],
    ) -> BulkResult:
        """Remove letters for good; see `DeadLetters.purge`."""
        return self._apply(lambda _: None, require_filter(which, every=every), dry_run, on_progress)

    def _apply(
        self,
        handle: Callable[[DeadLetterWithMessage], None],
        conditions: CheckedFilter,
        dry_run: bool,
        on_progress: OnProgress | None,
    ) -> BulkResult:
        """Remove the letters that match, and call `handle` with each."""
        selected, missing = self._select(conditions)
        result = BulkResult(done=len(selected), missing=missing)
        if not dry_run:
            for letter in selected:
                del self._letters[letter.id]
                handle(letter)
        if on_progress is not None:
            on_progress(result)
        return result

    def _select(self, conditions: CheckedFilter) -> tuple[tuple[DeadLetterWithMessage, ...], tuple[str, ...]]:
        """Return the letters that match, oldest first, and the ids in the filter that have no letter."""
        first, last = conditions.time_range(_unix_ms(utc_now()))
        ids = tuple(self._letters) if conditions.ids is None else conditions.ids
        candidates = [self._letters[name] for name in ids if name in self._letters]
        selected = tuple(
            letter for letter in candidates if first <= letter.died_ms <= last and conditions.matches(letter)
        )
        return selected, tuple(name for name in ids if name not in self._letters)


def _unix_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
