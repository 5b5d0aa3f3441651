"""Accept jobs: one script decides, for each, whether it is new, known, in conflict, or one too many.

The script is the only way a job of a Headrace producer gets into Redis, so that "same id, one job" and the
limit of a queue hold against every other producer at the same moment.

Fields of a job's record (`Keys.job`): `d` digest of what was asked, `m` model, `t` submitted (unix
milliseconds), and where given `e` earliest start (unix milliseconds), `x` metadata (JSON).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgspec

from headrace import envelope
from headrace.envelope import Job
from headrace.errors import InvalidInput
from headrace.queues import Keys, queue_name, step_of

#: Jobs one call of the script takes: a call should hold Redis for well under a millisecond.
CHUNK = 250

#: KEYS: the lists of the queue, highest priority first; then the record of each job.
#: ARGV: which list (from 1), limit of the queue (0: none), seconds a record is kept, unix milliseconds;
#: then digest, model, earliest start, metadata ('' for none) and message of each job.
#: Returns an Accepted for each job. A digest compares as text: Lua's strings are bytes.
SCRIPT = """
local lists = #KEYS - (#ARGV - 4) / 5
local target, limit, ttl, now = KEYS[tonumber(ARGV[1])], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local waiting = 0
if limit > 0 then
  for i = 1, lists do waiting = waiting + redis.call('LLEN', KEYS[i]) end
end
local replies = {}
for i = 1, #KEYS - lists do
  local record, at = KEYS[lists + i], 5 * i
  local known = redis.call('HGET', record, 'd')
  if known then
    replies[i] = known == ARGV[at] and 1 or 2
  elseif limit > 0 and waiting >= limit then
    replies[i] = 3
  else
    redis.call('HSET', record, 'd', ARGV[at], 'm', ARGV[at + 1], 't', now)
    if ARGV[at + 2] ~= '' then redis.call('HSET', record, 'e', ARGV[at + 2]) end
    if ARGV[at + 3] ~= '' then redis.call('HSET', record, 'x', ARGV[at + 3]) end
    redis.call('EXPIRE', record, ttl)
    redis.call('LPUSH', target, ARGV[at + 4])
    waiting = waiting + 1
    replies[i] = 0
  end
end
return replies
"""


class Accepted(IntEnum):
    """What became of a job handed in."""

    NEW = 0
    KNOWN = 1
    CONFLICT = 2
    FULL = 3


class Packed(msgspec.Struct, frozen=True):
    """A job ready to be handed in: its message, and the digest that tells a repeat from a conflict."""

    job: Job
    digest: bytes
    message: bytes


def encoded(instances: Sequence[Any], limit: int) -> bytes:
    """Instances as JSON. Raises InvalidInput for what JSON cannot hold or what takes over `limit` bytes."""
    as_json = envelope.encode_instances(instances)
    if len(as_json) > limit:
        raise InvalidInput(
            f"the job's instances take {len(as_json):,} bytes as JSON, more than the {limit:,} of "
            "HEADRACE_MAX_JOB_BYTES; send fewer or smaller instances in a job"
        )
    return as_json


def pack(job: Job, limit: int) -> Packed:
    """Encode a job. Raises InvalidInput as `encoded` does."""
    instances = encoded(job.instances, limit)
    asked = msgspec.json.encode([job.model, job.version, job.method])
    digest = hashlib.blake2b(asked + instances, digest_size=12).digest()
    return Packed(job, digest, envelope.encode(job, instances))


def call(
    keys: Keys, packed: Sequence[Packed], *, limit: int, ttl: int, now_ms: int
) -> tuple[list[str], list[str | bytes | int]]:
    """KEYS and ARGV of the script for jobs of one queue and one priority."""
    first = packed[0].job
    names = list(keys.lists(queue_name(first.model)))
    values: list[str | bytes | int] = [step_of(first.priority) + 1, limit, ttl, now_ms]
    for one in packed:
        job = one.job
        names.append(keys.job(job.id))
        values += [
            one.digest,
            job.model,
            int(job.eta.timestamp() * 1000) if job.eta else "",
            msgspec.json.encode(job.metadata) if job.metadata else "",
            one.message,
        ]
    return names, values
