"""What is found in an arena when a scenario is over, for the master check."""

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


class Blow(msgspec.Struct, frozen=True):
    """Something done to a worker, when (monotonic), and the jobs it held."""

    at: float
    held: frozenset[str]


def settle(arena: Arena) -> None:
    """Wait until nothing waits, and nothing more ends."""
    end, still, count = time.monotonic() + arena.settles, 0.0, -1
    while time.monotonic() < end:
        if arena.system.waiting(arena.server) or len(arena.witness.heard) != count:
            still, count = time.monotonic(), len(arena.witness.heard)
        elif (
            set(ledger.read(arena.folder).confirmed) <= set(arena.witness.heard)
            or time.monotonic() - still > _STILL
        ):
            return
        time.sleep(0.1)


def collect(arena: Arena) -> Evidence:
    """What became of all jobs, and what is left in Redis."""
    books = ledger.read(arena.folder)
    jobs = sorted(books.asked)
    stored = {
        key.decode().removeprefix(RESULT): raw
        for part in _chunks([RESULT.encode() + job.encode() for job in jobs])
        for key, raw in zip(part, arena.server.mget(part), strict=True)
        if raw is not None
    }
    dead = None
    if arena.system.name == "headrace":
        letters = {letter.decode() for letter in arena.server.hkeys("headrace:dead")}
        dead = frozenset(letter for letter in letters if not letter.startswith("malformed-"))
    there = everything_in(arena.server, ("headrace:dead", "headrace:dead:times"))
    return Evidence(
        books=books,
        stored=stored,
        heard=arena.witness.heard,
        runs=arena.runs(),
        stored_twice=stored_twice(arena.redis_folder),
        dead=dead,
        still_there=frozenset(job.decode() for job in ID.findall(there)),
        leftovers=arena.system.leftovers(arena.server),
        recovery=recoveries(arena.blows, arena.witness.heard),
        resumed=[arena.witness.first_after(moment) or arena.settles for moment in arena.back],
        lease=arena.lease,
        may_lose=arena.may_lose,
        may_repeat=arena.ground.sentinels,
    )


def recoveries(blows: Sequence[Blow], heard: Mapping[str, Sequence[float]]) -> list[float]:
    """Seconds from each blow to the outcome of the last job its victim held.

    A job that a later victim held again is measured from that blow: by then it had run elsewhere.
    """
    last: dict[str, int] = {job: number for number, blow in enumerate(blows) for job in blow.held}
    found = []
    for number, blow in enumerate(blows):
        times = [heard[job][0] for job in blow.held if last[job] == number and heard.get(job)]
        if times:
            found.append(max(0.0, max(times) - blow.at))
    return found


def _chunks(keys: list[bytes], size: int = 1000) -> Iterator[list[bytes]]:
    for first in range(0, len(keys), size):
        yield keys[first : first + size]
