"""The statistics of a version while another one is tried beside it: jobs, failures, durations and differences.

Redis holds a hash for each version, for a week after the last job. Durations are counted in exponential buckets,
so the hash has a bounded size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from redis.exceptions import NoPermissionError

from headrace.catalog.aliases import CANARY, PRODUCTION, SHADOW, Alias
from headrace.connection.commands import Command, Operation, Pipeline, Script
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.wire.keys import Keys
from headrace.wire.stored import decode_items, hash_items

#: Seconds the hash of a version is kept after the last job.
_TTL_SECONDS = 7 * 86_400
#: The upper end of the first bucket in seconds, the buckets for each doubling, and the number of the last bucket.
_FIRST_SECONDS, _BUCKETS_PER_DOUBLING, _LAST_BUCKET = 1e-6, 4, 160

#: KEYS: the hash. ARGV: seconds it is kept, the largest difference, then pairs of a field and the number to add.
#: HINCRBYFLOAT refuses what is no finite number, so all numbers are checked before the first is added.
#: The cost is linear in the number of fields.
_ADD = Script(
    "add_version_stats",
    CHECKED_FUNCTION
    + """
local key = KEYS[1]
local stored = checked('HGETALL', key)
local numbers = {}
for i = 1, #stored, 2 do numbers[stored[i]] = stored[i + 1] end
local function finite(text, field)
  local number = string.find(text, '^%-?[%d.]+[eE]?[+-]?%d*$') and tonumber(text)
  if not number or number - number ~= 0 then
    error('WRONGTYPE ' .. field .. ' is no finite number (key ' .. key .. '); delete the key', 0)
  end
  return number
end
local largest = finite(numbers.largest_difference or '0', 'largest_difference')
local is_larger = finite(ARGV[2], 'largest_difference') > largest
for i = 3, #ARGV, 2 do
  local field = ARGV[i]
  finite(tostring(finite(numbers[field] or '0', field) + finite(ARGV[i + 1], field)), field)
end
for i = 3, #ARGV, 2 do redis.call('HINCRBYFLOAT', key, ARGV[i], ARGV[i + 1]) end
if is_larger then redis.call('HSET', key, 'largest_difference', ARGV[2]) end
redis.call('EXPIRE', key, ARGV[1])
return 1
""",
)


class VersionStats(msgspec.Struct, kw_only=True):
    """The statistics of one version. The jobs of a shadow are those it ran beside production."""

    #: Jobs that succeeded, and jobs that failed or are retried because of the version.
    succeeded: int = 0
    failed: int = 0
    #: Jobs by the bucket of the seconds their batch took to predict.
    jobs_by_bucket: dict[int, int] = {}
    #: Predictions of a shadow compared with production's, and those that differ: another class, or a number
    #: further off than the tolerance of `parity`.
    compared: int = 0
    differing: int = 0
    #: The sum of the differences between numbers, and the largest difference.
    difference_sum: float = 0.0
    largest_difference: float = 0.0
    #: Batches a shadow did not run, because it had used up its time.
    skipped: int = 0

    @property
    def jobs(self) -> int:
        """The jobs counted."""
        return self.succeeded + self.failed

    @property
    def failure_rate(self) -> float:
        """The share of jobs that failed, from 0 to 1; 0 without jobs."""
        return self.failed / self.jobs if self.jobs else 0.0

    def quantile_seconds(self, fraction: float) -> float | None:
        """Return the seconds within which a fraction of the jobs was predicted, such as 0.99.

        It is the upper end of a bucket; None without jobs.
        """
        required, counted = fraction * sum(self.jobs_by_bucket.values()), 0
        for bucket, jobs in sorted(self.jobs_by_bucket.items()):
            counted += jobs
            if counted >= required:
                return _FIRST_SECONDS * 2 ** ((bucket + 1) / _BUCKETS_PER_DOUBLING)
        return None

    def add_duration(self, seconds: float, jobs: int) -> None:
        """Count jobs whose batch took these seconds to predict."""
        bucket = bucket_of(seconds)
        self.jobs_by_bucket[bucket] = self.jobs_by_bucket.get(bucket, 0) + jobs


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket of a duration."""
    if seconds <= _FIRST_SECONDS:
        return 0
    return min(_LAST_BUCKET, int(math.log2(seconds / _FIRST_SECONDS) * _BUCKETS_PER_DOUBLING))


def add_command(keys: Keys, model: str, version: str, stats: VersionStats) -> Command:
    """Return the command that adds statistics to those of a version in Redis."""
    numbers: dict[str, float] = {
        **{name: getattr(stats, name) for name in _SUMS},
        **{f"t{bucket}": jobs for bucket, jobs in stats.jobs_by_bucket.items()},
    }
    additions = [arg for name, number in numbers.items() if number for arg in (name, number)]
    return _ADD([keys.version_stats(model, version)], [_TTL_SECONDS, stats.largest_difference, *additions])


def delete_command(keys: Keys, model: str, versions: Iterable[str]) -> Command:
    """Return the command that deletes the statistics of versions."""
    return Command(("DEL", *(keys.version_stats(model, version) for version in versions)))


def read_command(keys: Keys, model: str, version: str) -> Command:
    """Return the command that reads the statistics of a version; `decode_stats` reads its reply."""
    return Command(("HGETALL", keys.version_stats(model, version)))


def read_tried(
    keys: Keys, model: str, by_name: Mapping[str, Alias]
) -> Operation[list[tuple[str, str, VersionStats]]]:
    """Return alias, version and statistics of production, canary and shadow, as far as the aliases exist.

    A version whose key is of another type has none; this is logged. Raises NoPermissionError.
    """
    versions = [(name, by_name[name].version) for name in (PRODUCTION, CANARY, SHADOW) if name in by_name]
    if not versions:
        return []
    replies = yield Pipeline(tuple(read_command(keys, model, version).args for _, version in versions))
    for reply in replies:
        if isinstance(reply, NoPermissionError):
            raise reply
    return [
        (name, version, decode_stats(f"{model}@{version}", reply))
        for (name, version), reply in zip(versions, replies, strict=True)
    ]


def decode_stats(version: str, reply: Any) -> VersionStats:
    """Return the statistics of a version in a reply to HGETALL.

    Unknown fields, of a newer Headrace, are ignored. Damaged ones are skipped, and their names are logged.
    """
    stats, where = VersionStats(), f"the statistics of {version}"
    for name, number in decode_items(_decode_number, hash_items(reply, where), where):
        if name in _FLOATS:
            setattr(stats, name, number)
        elif name in _SUMS:
            setattr(stats, name, int(number))
        elif name[:1] == "t" and name[1:].isascii() and name[1:].isdigit():
            stats.jobs_by_bucket[min(_LAST_BUCKET, int(name[1:6]))] = int(number)
    return stats


def _decode_number(stored: bytes) -> float:
    number = float(stored)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


#: The fields that `_ADD` adds to, and those that are floats.
_SUMS = ("succeeded", "failed", "compared", "differing", "difference_sum", "skipped")
_FLOATS = ("difference_sum", "largest_difference")
