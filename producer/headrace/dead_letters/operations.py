"""The operations of `client.dead_letters`: search, count, read, replay, purge.

The blocking and the asyncio client run the same operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from headrace.catalog.published import ContractCache
from headrace.connection.commands import Operation
from headrace.dead_letters.bulk import BulkOperation
from headrace.dead_letters.filter import DeadLetterFilter, parse_filter, require_filter
from headrace.dead_letters.replay import (
    PreparedEntry,
    PreparedNotice,
    PreparedReplay,
    prepare_entry,
    prepare_notice,
    prepare_replay,
)
from headrace.dead_letters.scripts import (
    LetterResult,
    count_command,
    purge_command,
    replay_command,
    replay_entries_command,
    replay_notices_command,
)
from headrace.dead_letters.search import DeadLetterCursor, MessageCursor, read_letters
from headrace.errors import InvalidInput, UnknownLetter
from headrace.settings import Settings
from headrace.user import name_user_and_host
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage
from headrace.wire.keys import Keys
from headrace.wire.listening import LISTEN_QUEUE
from headrace.wire.notice import NOTICE_QUEUE
from headrace.wire.parsing import MalformedMessage
from headrace.wire.signing import JobKeys


class DeadLetterCount(msgspec.Struct, frozen=True, kw_only=True):
    """The number of dead letters, and the number of letters dropped by the limits of number and age."""

    letters: int
    dropped: int


class DeadLetterOperations:
    """The operations on dead letters of one client. `job_keys` sign messages; None where jobs are not signed."""

    def __init__(self, settings: Settings, keys: Keys, contracts: ContractCache, job_keys: JobKeys | None) -> None:
        self._settings, self._keys, self._contracts, self._job_keys = settings, keys, contracts, job_keys

    def search(self, conditions: DeadLetterFilter) -> DeadLetterCursor:
        """Return a cursor over the letters of a filter. Raises InvalidInput."""
        return DeadLetterCursor(self._keys, parse_filter(conditions))

    def search_with_messages(self, conditions: DeadLetterFilter) -> MessageCursor:
        """Return a cursor over the letters of a filter with their messages. Raises InvalidInput."""
        return MessageCursor(self._keys, self.search(conditions))

    def read(self, letter_id: str) -> Operation[DeadLetterWithMessage]:
        """Read one letter with its message. Raises UnknownLetter."""
        _, (letter,) = yield from read_letters(self._keys, [letter_id])
        if letter is None:
            raise UnknownLetter(
                f"there is no dead letter {letter_id}; it may have been replayed, purged or dropped"
            )
        return letter

    def count(self) -> Operation[DeadLetterCount]:
        """Count the letters, and those that were dropped."""
        letters, dropped = yield count_command(self._keys)
        return DeadLetterCount(letters=letters, dropped=int(dropped or 0))

    def replay(
        self,
        conditions: DeadLetterFilter,
        now: datetime,
        *,
        version: str | None,
        rate: float | None,
        dry_run: bool,
        every: bool,
    ) -> BulkOperation:
        """Return the operation that puts the jobs of letters back on their queues.

        `version` is the version to run, None for the version each job names; `rate` is in letters a second;
        `every` permits a filter without conditions. Raises InvalidInput, and in its steps UnknownModel.
        """
        if rate is not None and not 0 < rate < float("inf"):
            raise InvalidInput("`rate` is a number of letters a second above 0")
        version = check_version(version)
        checked_models: set[str] = set()

        def handle(letters: Sequence[DeadLetter]) -> Operation[list[LetterResult]]:
            if version is not None:
                models = {letter.model for letter in letters if letter.model is not None}
                for model in models - checked_models:
                    yield from self._contracts.resolve(model, version, now)
                    checked_models.add(model)
            if dry_run:
                return [
                    LetterResult.MALFORMED if letter.reason == "malformed" else LetterResult.DONE
                    for letter in letters
                ]
            return (yield from self._replay(letters, version))

        cursor = DeadLetterCursor(self._keys, require_filter(conditions, every=every))
        return BulkOperation(cursor, handle, rate=rate)

    def _replay(self, letters: Sequence[DeadLetter], version: str | None) -> Operation[list[LetterResult]]:
        """Replay the letters, or the first of them; return a result for each."""
        now_ms, stored = yield from read_letters(self._keys, [letter.id for letter in letters])
        results: list[LetterResult] = []
        replays: dict[int, PreparedReplay] = {}
        notices: dict[int, PreparedNotice] = {}
        entries: dict[int, PreparedEntry] = {}
        replayed_by = name_user_and_host()
        for index, (letter, current) in enumerate(zip(letters, stored, strict=False)):
            results.append(LetterResult.ALREADY_HANDLED)
            if current is None or current.died_ms != letter.died_ms:
                continue
            try:
                if current.queue == NOTICE_QUEUE:
                    notices[index] = prepare_notice(current, replayed_by=replayed_by, now_ms=now_ms)
                elif current.queue == LISTEN_QUEUE:
                    entries[index] = prepare_entry(current)
                else:
                    replays[index] = prepare_replay(
                        current, replayed_by=replayed_by, now_ms=now_ms, version=version, keys=self._job_keys
                    )
            except MalformedMessage:
                results[index] = LetterResult.MALFORMED
        if replays:
            command = replay_command(self._keys, [*replays.values()], record_ttl=self._settings.job_ttl)
            results = _with_replies(results, replays, (yield command))
        if notices:
            results = _with_replies(
                results, notices, (yield replay_notices_command(self._keys, [*notices.values()]))
            )
        if entries:
            results = _with_replies(
                results, entries, (yield replay_entries_command(self._keys, [*entries.values()]))
            )
        return results

    def purge(self, conditions: DeadLetterFilter, *, dry_run: bool, every: bool) -> BulkOperation:
        """Return the operation that removes letters. `every` permits a filter without conditions."""

        def handle(letters: Sequence[DeadLetter]) -> Operation[list[LetterResult]]:
            if dry_run:
                return [LetterResult.DONE] * len(letters)
            replies = yield purge_command(self._keys, letters)
            return [LetterResult(reply) for reply in replies]

        cursor = DeadLetterCursor(self._keys, require_filter(conditions, every=every))
        return BulkOperation(cursor, handle, rate=None)


def _with_replies(
    results: Sequence[LetterResult], indexes: Iterable[int], replies: Sequence[int]
) -> list[LetterResult]:
    """Return the results with the replies of a script in their places."""
    replaced = dict(zip(indexes, map(LetterResult, replies), strict=True))
    return [replaced.get(index, result) for index, result in enumerate(results)]


def check_version(version: str | None) -> str | None:
    """Return the version. Raises InvalidInput unless it is None or a number as text."""
    if version is not None and not (isinstance(version, str) and version.isascii() and version.isdigit()):
        raise InvalidInput("`version` is a number as text, such as '3'")
    return version
