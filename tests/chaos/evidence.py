"""Collect the data of a finished scenario for the final check."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from tests.chaos import ledger
from tests.chaos.check import Evidence
from tests.chaos.outcome_recorder import RESULT_PREFIX, count_repeated_writes
from tests.chaos.systems import read_all_values

if TYPE_CHECKING:
    from tests.chaos.environment import Environment

#: A job id of the suite, in a message.
ID = re.compile(rb'"id": ?"(job-\d+)"')
#: Seconds without waiting jobs and without a new outcome, after which jobs without an outcome count as lost.
_QUIET_SECONDS = 3.0


class Kill(msgspec.Struct, frozen=True):
    """A fault of a worker: its monotonic time, and the jobs the worker held."""

    killed_at: float
    held: frozenset[str]


def wait_until_settled(env: Environment) -> None:
    """Wait until no job waits, and no further outcome is published."""
    end, changed_at, count = time.monotonic() + env.settle_seconds, 0.0, -1
    while time.monotonic() < end:
        if env.system.waiting(env.server) or len(env.recorder.published) != count:
            changed_at, count = time.monotonic(), len(env.recorder.published)
        elif (
            set(ledger.read(env.folder).confirmed) <= set(env.recorder.published)
            or time.monotonic() - changed_at > _QUIET_SECONDS
        ):
            return
        time.sleep(0.1)


def collect_evidence(env: Environment) -> Evidence:
    """Collect the outcomes of all jobs, and the keys left in Redis."""
    ledgers = ledger.read(env.folder)
    jobs, outcomes = sorted(ledgers.submitted), env.prefix + RESULT_PREFIX
    stored = {
        key.decode().removeprefix(outcomes): raw
        for key_chunk in _chunks([(outcomes + job).encode() for job in jobs])
        for key, raw in zip(key_chunk, env.server.mget(key_chunk), strict=True)
        if raw is not None
    }
    dead, dead_letters = None, f"{env.prefix}headrace:dead"
    if env.system.name == "headrace":
        letters = {letter.decode() for letter in env.server.hkeys(dead_letters)}
        dead = frozenset(letter for letter in letters if not letter.startswith("malformed-"))
    remaining = read_all_values(env.server, (dead_letters, f"{dead_letters}:times"))
    return Evidence(
        ledgers=ledgers,
        stored=stored,
        published=env.recorder.published,
        runs=env.runs(),
        repeated_writes=count_repeated_writes(env.redis_folder, env.prefix),
        dead=dead,
        in_redis=frozenset(job.decode() for job in ID.findall(remaining)),
        leftovers=env.system.leftovers(env.server),
        recovery=recovery_seconds(
            env.kills, env.recorder.published, [*env.redis_recovered_at, *env.workers_recovered_at]
        ),
        resumed=[
            env.recorder.seconds_to_next(answered_at) or env.settle_seconds
            for answered_at in env.redis_recovered_at
        ],
        lease=env.lease,
        clock_ahead=env.clock_ahead,
        may_be_lost=env.may_be_lost,
        may_be_repeated=any((env.requirements.sentinels, env.requirements.cluster, env.requirements.resumed)),
    )


def recovery_seconds(
    kills: Sequence[Kill], published: Mapping[str, Sequence[float]], recovered_at: Sequence[float] = ()
) -> list[float]:
    """Return the seconds from each kill to the outcome of the last job of its victim.

    A job that a later victim held again is measured from that later kill. Nobody recovers a job while Redis is
    away, or without a worker: if one of `recovered_at` is before that outcome, the seconds count from there.
    """
    last: dict[str, int] = {job: number for number, kill in enumerate(kills) for job in kill.held}
    seconds = []
    for number, kill in enumerate(kills):
        times = [published[job][0] for job in kill.held if last[job] == number and published.get(job)]
        if times:
            ended_at = max(times)
            returns = (moment for moment in recovered_at if moment < ended_at)
            seconds.append(max(0.0, ended_at - max(kill.killed_at, *returns, 0.0)))
    return seconds


def _chunks(keys: list[bytes], size: int = 1000) -> Iterator[list[bytes]]:
    for first in range(0, len(keys), size):
        yield keys[first : first + size]
