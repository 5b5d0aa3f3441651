"""Accept jobs: one script decides, for each, whether it is new, known, in conflict, or one too many.

The script is the only way a job of a Headrace producer gets into Redis, so that "same id, one job" and the
limit of a queue hold against every other producer at the same moment.

Beside each job lies its record (`headrace.wire.record`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgspec

from headrace.errors import InvalidInput
from headrace.wire import message as envelope
from headrace.wire.keys import Keys, queue_name, step_of
from headrace.wire.message import Job
from headrace.wire.record import DIGEST_BYTES, Record
from headrace.wire.signing import JobKeys

#: Jobs one call of the script takes: a call should hold Redis for about a millisecond.
CHUNK = 250

#: KEYS: the lists of the queue, highest priority first; then the record of each job.
#: ARGV: which list (from 1), limit of the queue (0: none), seconds a record is kept, bytes of a digest; then
#: record and message of each job.
#: Returns an Accepted for each job. Records compare as text: Lua's strings are bytes.
SCRIPT = """
local lists = #KEYS - (#ARGV - 4) / 2
local target, limit, ttl, digest = KEYS[tonumber(ARGV[1])], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local room = math.huge
if limit > 0 then
  room = limit
  for i = 1, lists do room = room - redis.call('LLEN', KEYS[i]) end
end
local replies, new = {}, {}
for i = 1, #KEYS - lists do
  local key, record = KEYS[lists + i], ARGV[3 + 2 * i]
  if room > #new and redis.call('SET', key, record, 'NX', 'EX', ttl) then
    new[#new + 1] = ARGV[4 + 2 * i]
    replies[i] = 0
  else
    local known = redis.call('GETRANGE', key, 0, digest - 1)
    if known == '' then replies[i] = 3
    elseif known == string.sub(record, 1, digest) then replies[i] = 1
    else replies[i] = 2 end
  end
end
if #new > 0 then
  local pushed = redis.pcall('LPUSH', target, unpack(new))
  if type(pushed) == 'table' and pushed.err then
    -- A job that is nowhere must not pass for known when it is submitted again.
    for i, reply in ipairs(replies) do
      if reply == 0 then redis.call('EXPIRE', KEYS[lists + i], 0) end
    end
    return pushed
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


class EncodedJob(msgspec.Struct, frozen=True, gc=False):
    """A job ready to be handed in: its message, and the digest that tells a repeat from a conflict."""

    job: str
    digest: bytes
    message: bytes


class JobEncoder:
    """Packs jobs that differ in id and instances alone: all else of their messages is made once.

    `asked` is the version in the caller's words: None, an alias, or a number. `keys` sign them.
    """

    def __init__(self, like: Job, asked: str | None, keys: JobKeys | None = None) -> None:
        self.template = like
        self._form = envelope.message_template(like, keys)
        # A repeat is one of what was asked for, whatever an alias pointed to at the time.
        self._asked = msgspec.json.encode([like.model, asked, like.method])

    def encode(self, job: str, instances: bytes) -> EncodedJob:
        """A job by its id; its instances, as many as `like` has, are given as JSON (`encoded`)."""
        digest = hashlib.blake2b(self._asked + instances, digest_size=DIGEST_BYTES).digest()
        return EncodedJob(job, digest, self._form.render(job, instances))

    def record(self, now_ms: int | None) -> bytes:
        """What the records of these jobs hold besides the digest, submitted at that moment (unix milliseconds).

        None where their ids tell it: an eighth of what a waiting job takes beside its message.
        """
        like = self.template
        earliest = int(like.eta.timestamp() * 1000) if like.eta else None
        return msgspec.json.encode(Record(m=like.model, t=now_ms, e=earliest, x=like.metadata))


def encode_instances_within(instances: Sequence[Any], limit: int) -> bytes:
    """Instances as JSON. Raises InvalidInput for what JSON cannot hold or what takes over `limit` bytes."""
    as_json = envelope.encode_instances(instances)
    if len(as_json) > limit:
        raise InvalidInput(
            f"the job's instances take {len(as_json):,} bytes as JSON, more than the {limit:,} of "
            "HEADRACE_MAX_JOB_BYTES; send fewer or smaller instances in a job"
        )
    return as_json


def call(
    keys: Keys, packer: JobEncoder, packed: Sequence[EncodedJob], *, limit: int, ttl: int, now_ms: int | None
) -> tuple[list[str], list[str | bytes | int]]:
    """KEYS and ARGV of the script for jobs of one packer, CHUNK at the most."""
    names = [*keys.lists(queue_name(packer.template.model)), *(keys.job(one.job) for one in packed)]
    values: list[str | bytes | int] = [step_of(packer.template.priority) + 1, limit, ttl, DIGEST_BYTES]
    record = packer.record(now_ms)
    for one in packed:
        values += (one.digest + record, one.message)
    return names, values
