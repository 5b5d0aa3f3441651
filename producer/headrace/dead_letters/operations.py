"""What can be done with dead letters: search, count, show, replay, purge.

Every operation works on a few letters at a time, so that a hundred thousand of them take no more memory than a few
hundred, and so that `DeadLetters` and `AsyncDeadLetters` share every decision.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from headrace.catalog.published import ContractCache
from headrace.connection.commands import Operation, Script
from headrace.dead_letters import replay
from headrace.dead_letters.bulk import BulkOperation
from headrace.dead_letters.filter import DeadLetterFilter, parse_filter, require_filter
from headrace.dead_letters.replay import LetterResult, PreparedReplay
from headrace.dead_letters.search import DeadLetterCursor, MessageCursor, read_letters
from headrace.errors import InvalidInput, UnknownLetter
from headrace.settings import Settings
from headrace.wire.dead_letter import DeadLetter, DeadLetterWithMessage
from headrace.wire.keys import Keys
from headrace.wire.parsing import MalformedMessage
from headrace.wire.signing import JobKeys

#: KEYS: died, dead, dead messages. ARGV: id and moment it died of each letter. Returns a Fate for each.
_PURGE = Script("""
local fates = {}
for i = 1, #ARGV, 2 do
  local found = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if found and tonumber(found) == tonumber(ARGV[i + 1]) then
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
    redis.call('ZREM', KEYS[1], ARGV[i])
    fates[#fates + 1] = 1
  else
    fates[#fates + 1] = 0
  end
end
return fates
""")

_COUNT = Script("return {redis.call('ZCARD', KEYS[1]), redis.call('GET', KEYS[2])}")
_REPLAY = Script(replay.SCRIPT)


class DeadLetterCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead letters there are, and how many were dropped because they were too many or too old."""

    letters: int
    dropped: int


class DeadLetterOperations:
    """The plans of dead letters, of one client."""

    def __init__(self, settings: Settings, keys: Keys, contracts: ContractCache, job_keys: JobKeys | None) -> None:
        self._settings, self._keys, self._contracts, self._job_keys = settings, keys, contracts, job_keys

    def search(self, given: DeadLetterFilter) -> DeadLetterCursor:
        """The letters of a filter."""
        return DeadLetterCursor(self._keys, parse_filter(given))

    def search_with_messages(self, given: DeadLetterFilter) -> MessageCursor:
        """The letters of a filter, with their messages."""
        return MessageCursor(self._keys, self.search(given))

    def read(self, name: str) -> Operation[DeadLetterWithMessage]:
        """One letter. Raises UnknownLetter."""
        _, whole = yield from read_letters(self._keys, [name])
        if whole[0] is None:
            raise UnknownLetter(f"there is no dead letter {name}; it may have been replayed, purged or dropped")
        return whole[0]

    def count(self) -> Operation[DeadLetterCount]:
        """How many letters there are, and were."""
        kept, dropped = yield _COUNT([self._keys.dead_times, self._keys.dead_dropped])
        return DeadLetterCount(letters=kept, dropped=int(dropped or 0))

    def replay(
        self,
        given: DeadLetterFilter,
        now: datetime,
        *,
        version: str | None,
        rate: float | None,
        dry_run: bool,
        every: bool,
    ) -> BulkOperation:
        """Send the letters of a filter again, to another version where one is given."""
        if rate is not None and not 0 < rate < float("inf"):
            raise InvalidInput("`rate` is a number of letters a second above 0")
        version = check_version(version)
        checked: set[str] = set()

        def deal(found: Sequence[DeadLetter]) -> Operation[list[LetterResult]]:
            if version is not None:
                for model in {one.model for one in found if one.model is not None} - checked:
                    yield from self._contracts.resolve(model, version, now)
                    checked.add(model)
            if dry_run:
                return [
                    LetterResult.MALFORMED if one.reason == "malformed" else LetterResult.DONE for one in found
                ]
            return (yield from self._replay(found, version))

        return BulkOperation(DeadLetterCursor(self._keys, require_filter(given, every=every)), deal, rate=rate)

    def _replay(self, found: Sequence[DeadLetter], version: str | None) -> Operation[list[LetterResult]]:
        now_ms, whole = yield from read_letters(self._keys, [one.id for one in found])
        fates: list[LetterResult] = []
        ready: list[tuple[int, PreparedReplay]] = []
        who = _who()
        for place, (seen, one) in enumerate(zip(found, whole, strict=False)):
            fates.append(LetterResult.ALREADY_HANDLED)
            if one is None or one.died_ms != seen.died_ms:
                continue
            try:
                sent = replay.prepare(one, who=who, now_ms=now_ms, version=version, keys=self._job_keys)
                ready.append((place, sent))
            except MalformedMessage:
                fates[place] = LetterResult.MALFORMED
        if ready:
            names, values = replay.call(self._keys, [one for _, one in ready], ttl=self._settings.job_ttl)
            replies = yield _REPLAY(names, values)
            for (place, _), fate in zip(ready, replies, strict=True):
                fates[place] = LetterResult(fate)
        return fates

    def purge(self, given: DeadLetterFilter, *, dry_run: bool, every: bool) -> BulkOperation:
        """Remove the letters of a filter for good."""

        def deal(found: Sequence[DeadLetter]) -> Operation[list[LetterResult]]:
            if dry_run:
                return [LetterResult.DONE] * len(found)
            values: list[Any] = [part for one in found for part in (one.id, one.died_ms)]
            replies = yield _PURGE([self._keys.dead_times, self._keys.dead, self._keys.dead_messages], values)
            return [LetterResult(fate) for fate in replies]

        return BulkOperation(DeadLetterCursor(self._keys, require_filter(given, every=every)), deal, rate=None)


def check_version(version: str | None) -> str | None:
    """The version itself. Raises InvalidInput for what is none."""
    if version is not None and not (isinstance(version, str) and version.isascii() and version.isdigit()):
        raise InvalidInput("`version` is a number as text, such as '3'")
    return version


def _who() -> str:
    """Who replays, for the history of the job: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user nobody named
        user = "unknown"
    return f"{user}@{socket.gethostname()}"[:128]
