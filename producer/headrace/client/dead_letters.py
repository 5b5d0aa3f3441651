"""Dead letters as a producer sees them: look, replay, purge, export.

Everything is a plan over a few letters at a time, so that a hundred thousand of them take no more memory than a
few hundred, and so that `DeadLetters` and `AsyncDeadLetters` share every decision.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Unpack

import msgspec

from headrace.client.session import Link, utc_now
from headrace.connection.commands import Plan, Script
from headrace.dead_letters import replay
from headrace.dead_letters.bulk import Sweep, Tally
from headrace.dead_letters.filter import LetterFilter, Wanted, wanted
from headrace.dead_letters.groups import Storm, Storms
from headrace.dead_letters.replay import Fate, Replay
from headrace.dead_letters.search import Search, Whole, read_whole
from headrace.errors import InvalidInput, UnknownLetter
from headrace.submit.submitter import Producer
from headrace.wire.dead_letter import Kept, Letter
from headrace.wire.parsing import NotAJob

#: Told of what a replay or purge has done, a few times a second.
OnProgress = Callable[[Tally], None]

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


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead letters there are, and how many were dropped because they were too many or too old."""

    letters: int
    dropped: int


class LetterPlans:
    """The plans of dead letters, of one producer."""

    def __init__(self, producer: Producer) -> None:
        self._producer, self._keys = producer, producer.keys

    def search(self, given: LetterFilter) -> Search:
        """The letters of a filter."""
        return Search(self._keys, wanted(given))

    def whole(self, given: LetterFilter) -> Whole:
        """The letters of a filter, with their messages."""
        return Whole(self._keys, self.search(given))

    def show(self, name: str) -> Plan[Kept]:
        """One letter. Raises UnknownLetter."""
        _, whole = yield from read_whole(self._keys, [name])
        if whole[0] is None:
            raise UnknownLetter(f"there is no dead letter {name}; it may have been replayed, purged or dropped")
        return whole[0]

    def count(self) -> Plan[Count]:
        """How many letters there are, and were."""
        kept, dropped = yield _COUNT([self._keys.died, self._keys.dead_dropped])
        return Count(letters=kept, dropped=int(dropped or 0))

    def replay(
        self,
        given: LetterFilter,
        now: datetime,
        *,
        version: str | None,
        rate: float | None,
        dry_run: bool,
        every: bool,
    ) -> Sweep:
        """Send the letters of a filter again, to another version where one is given."""
        if rate is not None and not 0 < rate < float("inf"):
            raise InvalidInput("`rate` is a number of letters a second above 0")
        version = checked_version(version)
        checked: set[str] = set()

        def deal(found: Sequence[Letter]) -> Plan[list[Fate]]:
            if version is not None:
                for model in {one.model for one in found if one.model is not None} - checked:
                    yield from self._producer.contract(model, version, now)
                    checked.add(model)
            if dry_run:
                return [Fate.NO_JOB if one.reason == "malformed" else Fate.DONE for one in found]
            return (yield from self._replay(found, version))

        return Sweep(Search(self._keys, some(given, every=every)), deal, rate=rate)

    def _replay(self, found: Sequence[Letter], version: str | None) -> Plan[list[Fate]]:
        now_ms, whole = yield from read_whole(self._keys, [one.id for one in found])
        fates: list[Fate] = []
        ready: list[tuple[int, Replay]] = []
        who = _who()
        for place, (seen, one) in enumerate(zip(found, whole, strict=False)):
            fates.append(Fate.GONE)
            if one is None or one.died_ms != seen.died_ms:
                continue
            try:
                sent = replay.replay(one, who=who, now_ms=now_ms, version=version, keys=self._producer.job_keys)
                ready.append((place, sent))
            except NotAJob:
                fates[place] = Fate.NO_JOB
        if ready:
            names, values = replay.call(self._keys, [one for _, one in ready], ttl=self._producer.settings.job_ttl)
            replies = yield _REPLAY(names, values)
            for (place, _), fate in zip(ready, replies, strict=True):
                fates[place] = Fate(fate)
        return fates

    def purge(self, given: LetterFilter, *, dry_run: bool, every: bool) -> Sweep:
        """Remove the letters of a filter for good."""

        def deal(found: Sequence[Letter]) -> Plan[list[Fate]]:
            if dry_run:
                return [Fate.DONE] * len(found)
            values: list[Any] = [part for one in found for part in (one.id, one.died_ms)]
            replies = yield _PURGE([self._keys.died, self._keys.dead, self._keys.dead_messages], values)
            return [Fate(fate) for fate in replies]

        return Sweep(Search(self._keys, some(given, every=every)), deal, rate=None)


class DeadLetters:
    """The dead letters of an installation: `client.dead_letters`. They are met oldest first.

    Letters are chosen by ids, model, reason, error, older_than and newer_than (`LetterFilter`). All methods
    raise BrokerUnavailable, and InvalidInput for a condition that cannot be.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._plans = LetterPlans(link.producer)

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


def some(given: LetterFilter, *, every: bool) -> Wanted:
    """A filter that does not mean every letter by mistake."""
    sought = wanted(given)
    if sought.every and not every:
        raise InvalidInput("say which letters: by `ids`, `model`, `reason`, `error` or age, or `every=True`")
    return sought


def checked_version(version: str | None) -> str | None:
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
