"""Enqueue jobs: one script decides for each job whether it is new, a repeat, in conflict, or over the limit.

The script is the only way a job of a Headrace producer gets into Redis. So "same id, one job" and the limit of a
queue hold against every other producer at the same moment.

The script also stores a record of each job (`headrace.wire.record`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Any

import msgspec

from headrace.connection.commands import Argument, Command, Script
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.wire.keys import PRIORITY_STEPS, Keys, priority_index, queue_name
from headrace.wire.limits import JobLimits
from headrace.wire.message import Job, build_template, encode_instances
from headrace.wire.record import DIGEST_BYTES, Record
from headrace.wire.signing import JobKeys

#: Jobs in one call of the script: a call should hold Redis for about a millisecond.
JOBS_PER_CALL = 250

#: Call it by `enqueue_command`. KEYS: the list of the jobs, the other lists of the queue, its delayed jobs, and
#: the record of each job. Records are compared as text: Lua's strings are bytes. The cost is linear in the number
#: and bytes of the jobs, whatever they and the stored records hold.
SCRIPT = (
    CHECKED_FUNCTION
    + """
local queue_limit, record_ttl, digest_bytes = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local jobs = (#ARGV - 3) / 2
local list, delayed = KEYS[1], #KEYS - jobs

-- Nothing is written before each key is known to have its type. Most jobs are new, and most queues have jobs in a
-- single list: one EXISTS finds both.
local waiting = checked('LLEN', list)
if redis.call('EXISTS', unpack(KEYS, 2)) > 0 then
  for i = 2, LISTS do waiting = waiting + checked('LLEN', KEYS[i]) end
  if redis.call('EXISTS', unpack(KEYS, LISTS + 1, delayed)) > 0 then
    for i = LISTS + 1, delayed - 1 do waiting = waiting + checked('LLEN', KEYS[i]) end
    waiting = waiting + checked('ZCARD', KEYS[delayed])
  end
  if jobs == 1 or redis.call('EXISTS', unpack(KEYS, delayed + 1)) > 0 then
    for i = delayed + 1, #KEYS do checked('GETRANGE', KEYS[i], 0, 0) end
  end
end

local room = queue_limit > 0 and queue_limit - waiting or math.huge
local NEW, REPEATED, CONFLICT, FULL = 0, 1, 2, 3
local replies, new_messages = {}, {}
for job = 1, jobs do
  local record_key, record, message = KEYS[delayed + job], ARGV[2 + 2 * job], ARGV[3 + 2 * job]
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
  local pushed = redis.pcall('LPUSH', list, unpack(new_messages))
  if type(pushed) == 'table' and pushed.err then
    -- A job that is in no list must not count as a repeat when it is submitted again.
    for job, reply in ipairs(replies) do
      if reply == NEW then redis.call('EXPIRE', KEYS[delayed + job], 0) end
    end
    return pushed
  end
end
return replies
""".replace("LISTS", str(len(PRIORITY_STEPS)))
)
_ENQUEUE = Script("enqueue", SCRIPT)


#: KEYS: record, result key. ARGV: the record of the lost job. Returns 1 if the id is free now.
_FORGET = Script(
    "forget_lost_job",
    """
local record = redis.pcall('GET', KEYS[1])
if record ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
return redis.call('EXPIRE', KEYS[1], 0)
""",
    flag="allow-oom",
)


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


def encode_instances_within(instances: Sequence[Any], limits: JobLimits) -> bytes:
    """Encode instances as JSON. Raises InvalidInput for values that JSON cannot hold, and over the limits."""
    encoded = encode_instances(instances)
    limits.check_instances(encoded)
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

    `queue_limit` is the most jobs the queue may hold: waiting, isolated, retried and delayed ones; 0 for no limit.
    `record_ttl` is in seconds; `submitted_ms` as for `JobEncoder.encode_record`. The reply is a list with an
    `EnqueueResult` for each job.
    """
    template = encoder.template
    names = [*_names_of_queue(keys, template.model, priority_index(template.priority))]
    names += [keys.job(job.job) for job in jobs]
    arguments: list[Argument] = [queue_limit, record_ttl, DIGEST_BYTES]
    record = encoder.encode_record(submitted_ms)
    for job in jobs:
        arguments += (job.digest + record, job.message)
    return _ENQUEUE(names, arguments)


def forget_command(keys: Keys, job: str, record: bytes) -> Command:
    """Return the command that frees the id of a lost job, unless its record changed or it has an outcome."""
    return _FORGET([keys.job(job), keys.result(job)], [record])


@lru_cache(maxsize=1024)
def _names_of_queue(keys: Keys, model: str, priority: int) -> tuple[str, ...]:
    """Return the keys of a queue in the script's order; `priority` is the index of the list that jobs go to."""
    queue = queue_name(model)
    lists = keys.lists(queue)
    others = [name for name in (*lists, *keys.sources(queue)) if name != lists[priority]]
    return (lists[priority], *dict.fromkeys(others), keys.delayed(queue))
