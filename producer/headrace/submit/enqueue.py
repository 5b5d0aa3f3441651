"""Enqueue jobs: one script decides for each job whether it is new, a repeat, in conflict, or over the limit.

The script is the only way a job of a Headrace producer gets into Redis. So "same id, one job" and the limit of a
queue hold against every other producer at the same moment.

The script also stores a record of each job (`headrace.wire.record`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgspec

from headrace.connection.commands import Argument, Command, Script
from headrace.errors import InvalidInput
from headrace.wire.keys import Keys, priority_index, queue_name
from headrace.wire.message import Job, build_template, encode_instances
from headrace.wire.record import DIGEST_BYTES, Record
from headrace.wire.signing import JobKeys

#: Jobs in one call of the script: a call should hold Redis for about a millisecond.
JOBS_PER_CALL = 250

#: Call it by `enqueue_command`. Records are compared as text: Lua's strings are bytes.
SCRIPT = """
local list_number, queue_limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local record_ttl, digest_bytes = ARGV[3], tonumber(ARGV[4])
local jobs = (#ARGV - 4) / 2
local lists = #KEYS - jobs
local room = math.huge
if queue_limit > 0 then
  room = queue_limit
  for i = 1, lists do room = room - redis.call('LLEN', KEYS[i]) end
end
local NEW, REPEATED, CONFLICT, FULL = 0, 1, 2, 3
local replies, new_messages = {}, {}
for job = 1, jobs do
  local record_key, record, message = KEYS[lists + job], ARGV[3 + 2 * job], ARGV[4 + 2 * job]
  if room > #new_messages and redis.call('SET', record_key, record, 'NX', 'EX', record_ttl) then
    new_messages[#new_messages + 1] = message
    replies[job] = NEW
  else
    local stored_digest = redis.call('GETRANGE', record_key, 0, digest_bytes - 1)
    if stored_digest == '' then replies[job] = FULL
    elseif stored_digest == string.sub(record, 1, digest_bytes) then replies[job] = REPEATED
    else replies[job] = CONFLICT end
  end
end
if #new_messages > 0 then
  local pushed = redis.pcall('LPUSH', KEYS[list_number], unpack(new_messages))
  if type(pushed) == 'table' and pushed.err then
    -- A job that is in no list must not count as a repeat when it is submitted again.
    for job, reply in ipairs(replies) do
      if reply == NEW then redis.call('EXPIRE', KEYS[lists + job], 0) end
    end
    return pushed
  end
end
return replies
"""
_ENQUEUE = Script(SCRIPT)


class EnqueueResult(IntEnum):
    """The decision of the script about one job."""

    NEW = 0
    REPEATED = 1
    CONFLICT = 2
    FULL = 3


class EncodedJob(msgspec.Struct, frozen=True, gc=False):
    """A job ready to be enqueued: its message, and the digest that tells a repeat from a conflict."""

    job: str
    digest: bytes
    message: bytes


class JobEncoder:
    """Encodes jobs that differ only in id and instances: the rest of their messages is made once.

    `template` is one of these jobs. `version` is the version as the caller named it: None, an alias, or a number.
    `keys` sign the messages.
    """

    def __init__(self, template: Job, version: str | None, keys: JobKeys | None = None) -> None:
        self.template = template
        self._message_template = build_template(template, keys)
        # A repeat names the same version, even if an alias has moved since.
        self._digest_prefix = msgspec.json.encode([template.model, version, template.method])

    def encode(self, job: str, instances: bytes) -> EncodedJob:
        """Encode a job with this id. `instances` are as many as the template has, as JSON."""
        digest = hashlib.blake2b(self._digest_prefix + instances, digest_size=DIGEST_BYTES).digest()
        return EncodedJob(job, digest, self._message_template.render(job, instances))

    def encode_record(self, submitted_ms: int | None) -> bytes:
        """Encode the record of these jobs, without the digest.

        `submitted_ms` is in unix milliseconds; None if the ids of the jobs hold that time, which saves an eighth
        of the memory that a waiting job takes beside its message.
        """
        template = self.template
        eta_ms = int(template.eta.timestamp() * 1000) if template.eta else None
        return msgspec.json.encode(
            Record(
                model=template.model, submitted_ms=submitted_ms, not_before_ms=eta_ms, metadata=template.metadata
            )
        )


def encode_instances_within(instances: Sequence[Any], limit: int) -> bytes:
    """Encode instances as JSON. Raises InvalidInput for values that JSON cannot hold, and over `limit` bytes."""
    encoded = encode_instances(instances)
    if len(encoded) > limit:
        raise InvalidInput(
            f"the job's instances take {len(encoded):,} bytes as JSON, more than the {limit:,} of "
            "HEADRACE_MAX_JOB_BYTES; send fewer or smaller instances in a job"
        )
    return encoded


def enqueue_command(
    keys: Keys,
    encoder: JobEncoder,
    jobs: Sequence[EncodedJob],
    *,
    queue_limit: int,
    record_ttl: int,
    submitted_ms: int | None,
) -> Command:
    """Return the command that enqueues at most JOBS_PER_CALL jobs of one encoder.

    `queue_limit` is the most jobs the queue may hold, 0 for no limit; `record_ttl` is in seconds; `submitted_ms`
    as for `JobEncoder.encode_record`. The reply is a list with an `EnqueueResult` for each job.
    """
    template = encoder.template
    names = [*keys.lists(queue_name(template.model)), *(keys.job(job.job) for job in jobs)]
    arguments: list[Argument] = [priority_index(template.priority) + 1, queue_limit, record_ttl, DIGEST_BYTES]
    record = encoder.encode_record(submitted_ms)
    for job in jobs:
        arguments += (job.digest + record, job.message)
    return _ENQUEUE(names, arguments)
