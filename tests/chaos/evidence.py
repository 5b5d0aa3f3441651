"""The evidence that an arena holds when a scenario is over, for the final check."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from tests.chaos import ledger
from tests.chaos.systems import everything_in
from tests.chaos.verdict import Evidence
from tests.chaos.witness import RESULT, stored_twice

if TYPE_CHECKING:
    from tests.chaos.arena import Arena

#: The id of a job of the suite, in a message.
ID = re.compile(rb'"id": ?"(job-\d+)"')
#: Seconds for which nothing waits and nothing ends until jobs without an outcome count as having none.
_STILL = 3.0


class Kill(msgspec.Struct, frozen=True):
    """A fault of a worker: its monotonic time, and the jobs the worker held."""

    killed_at: float
    held: frozenset[str]


def settle(arena: Arena) -> None:
    """Wait until no job waits, and no further outcome is published."""
    end, still, count = time.monotonic() + arena.settle_seconds, 0.0, -1
    while time.monotonic() < end:
        if arena.system.waiting(arena.server) or len(arena.witness.published) != count:
            still, count = time.monotonic(), len(arena.witness.published)
        elif (
            set(ledger.read(arena.folder).confirmed) <= set(arena.witness.published)
            or time.monotonic() - still > _STILL
        ):
            return
        time.sleep(0.1)


def collect(arena: Arena) -> Evidence:
    """Collect the outcomes of all jobs, and the keys left in Redis."""
    ledgers = ledger.read(arena.folder)
    jobs = sorted(ledgers.submitted)
    stored = {
        key.decode().removeprefix(RESULT): raw
        for key_chunk in _chunks([RESULT.encode() + job.encode() for job in jobs])
        for key, raw in zip(key_chunk, arena.server.mget(key_chunk), strict=True)
        if raw is not None
    }
    dead = None
    if arena.system.name == "headrace":
        letters = {letter.decode() for letter in arena.server.hkeys("headrace:dead")}
        dead = frozenset(letter for letter in letters if not letter.startswith("malformed-"))
    remaining = everything_in(arena.server, ("headrace:dead", "headrace:dead:times"))
    return Evidence(
        ledgers=ledgers,
        stored=stored,
        published=arena.witness.published,
        runs=arena.runs(),
        stored_twice=stored_twice(arena.redis_folder),
        dead=dead,
        still_there=frozenset(job.decode() for job in ID.findall(remaining)),
        leftovers=arena.system.leftovers(arena.server),
        recovery=recoveries(arena.kills, arena.witness.published),
        resumed=[arena.witness.first_after(moment) or arena.settle_seconds for moment in arena.redis_returns],
        lease=arena.lease,
        may_lose=arena.may_lose,
        may_repeat=arena.ground.sentinels,
    )


def recoveries(kills: Sequence[Kill], published: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the seconds from each kill to the outcome of the last job of its victim.

    A job that a later victim held again is measured from that later kill.
    """
    last: dict[str, int] = {job: number for number, kill in enumerate(kills) for job in kill.held}
    seconds = []
    for number, kill in enumerate(kills):
        times = [published[job][0] for job in kill.held if last[job] == number and published.get(job)]
        if times:
            seconds.append(max(0.0, max(times) - kill.killed_at))
    return seconds


def _chunks(keys: list[bytes], size: int = 1000) -> Iterator[list[bytes]]:
    for first in range(0, len(keys), size):
        yield keys[first : first + size]
