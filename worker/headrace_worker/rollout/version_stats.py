"""What is counted of a version while another one is tried beside it: jobs, failures, times, differences.

A hash for each version, in Redis for a week, of bounded size: times are counted in buckets, each a fifth wider
than the one before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from headrace.connection.commands import Command, Script
from headrace.wire.keys import Keys

#: Seconds a tally is kept after the last job was counted.
_KEPT = 7 * 86_400
#: Buckets of time begin at a microsecond; so many of them for a doubling.
_FIRST, _FOR_A_DOUBLING = 1e-6, 4
_MOST_BUCKETS = 160

#: KEYS: the tally. ARGV: seconds it is kept, the largest difference, then fields and what is added to each.
_ADD = Script("""
for place = 3, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[1], ARGV[place], ARGV[place + 1]) end
local largest = tonumber(redis.call('HGET', KEYS[1], 'largest_difference') or '0')
if tonumber(ARGV[2]) > largest then redis.call('HSET', KEYS[1], 'largest_difference', ARGV[2]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
""")


class VersionStats(msgspec.Struct, kw_only=True):
    """What was counted of one version. Jobs of a shadow are those it ran beside."""

    #: Jobs that succeeded, and that ended in a failure or a retry for what the version did.
    succeeded: int = 0
    failed: int = 0
    #: Jobs by the bucket of the time their batch took to predict.
    jobs_by_bucket: dict[int, int] = {}
    #: Predictions compared with those of the version that answered, and how many were not alike: another class, or
    #: a number further off than `parity` allows.
    compared: int = 0
    differing: int = 0
    #: The sum of the differences of numbers, and the largest.
    difference_sum: float = 0.0
    largest_difference: float = 0.0
    #: Claims that a shadow did not run beside, not to take more time than the version that answers.
    skipped: int = 0

    @property
    def jobs(self) -> int:
        """All that were counted."""
        return self.succeeded + self.failed

    @property
    def failure_rate(self) -> float:
        """The part of the jobs that failed, from 0 to 1; 0 where there were none."""
        return self.failed / self.jobs if self.jobs else 0.0

    def quantile_seconds(self, part: float) -> float | None:
        """The time that a part of the jobs (0.99) was within: the upper end of its bucket. None where none ran."""
        wanted, seen = part * sum(self.jobs_by_bucket.values()), 0
        for bucket, jobs in sorted(self.jobs_by_bucket.items()):
            seen += jobs
            if seen >= wanted:
                return _FIRST * 2 ** ((bucket + 1) / _FOR_A_DOUBLING)
        return None

    def add_duration(self, seconds: float, jobs: int) -> None:
        """Count jobs whose batch took so long."""
        bucket = bucket_of(seconds)
        self.jobs_by_bucket[bucket] = self.jobs_by_bucket.get(bucket, 0) + jobs


def bucket_of(seconds: float) -> int:
    """The number of the bucket of a time."""
    if seconds <= _FIRST:
        return 0
    return min(_MOST_BUCKETS, int(math.log2(seconds / _FIRST) * _FOR_A_DOUBLING))


def add_command(keys: Keys, model: str, version: str, tally: VersionStats) -> Command:
    """The command that adds what a claim came to."""
    counted: dict[str, float] = {
        **{name: getattr(tally, name) for name in _SUMS},
        **{f"t{bucket}": jobs for bucket, jobs in tally.jobs_by_bucket.items()},
    }
    words = [word for name, number in counted.items() if number for word in (name, number)]
    return _ADD([keys.version_stats(model, version)], [_KEPT, tally.largest_difference, *words])


def delete_command(keys: Keys, model: str, versions: Iterable[str]) -> Command:
    """The command that begins the tallies of versions anew."""
    return Command(("DEL", *(keys.version_stats(model, version) for version in versions)))


def read_command(keys: Keys, model: str, version: str) -> Command:
    """The command that reads a tally; `decoded` reads its reply."""
    return Command(("HGETALL", keys.version_stats(model, version)))


def decode_stats(reply: Any) -> VersionStats:
    """The tally in a reply to HGETALL. Fields of a newer Headrace are left out."""
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    tally = VersionStats()
    for name, number in ((name.decode(), float(stored)) for name, stored in pairs):
        if name in _FLOATS:
            setattr(tally, name, number)
        elif name in _SUMS:
            setattr(tally, name, int(number))
        elif name[:1] == "t" and name[1:].isdigit():
            tally.jobs_by_bucket[int(name[1:])] = int(number)
    return tally


_SUMS = ("succeeded", "failed", "compared", "differing", "difference_sum", "skipped")
_FLOATS = ("difference_sum", "largest_difference")
