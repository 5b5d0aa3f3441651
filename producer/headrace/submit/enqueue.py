"""Enqueue jobs: one script decides for each job whether it is new, a repeat, in conflict, or over the limit.

The script is the only way a job of a Headrace producer gets into Redis. So "same id, one job" and the limit of a
queue hold against every other producer at the same moment.

The script also stores a record of each job (`headrace.wire.record`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Any

import msgspec

from headrace.connection.commands import Argument, Command, Script
from headrace.connection.grouped import MAX_ITEMS, GroupedCommand
from headrace.connection.lua import CHECKED_FUNCTION, NOW_FUNCTION
from headrace.connection.packed_call import PackedCall
from headrace.wire.job_encoder import EncodedJob, JobEncoder
from headrace.wire.keys import Keys
from headrace.wire.limits import JobLimits
from headrace.wire.message import encode_instances
from headrace.wire.queues import PRIORITY_STEPS, priority_index
from headrace.wire.record import DIGEST_BYTES

#: Jobs in one call of the script.
JOBS_PER_CALL = MAX_ITEMS

#: Call it by `Enqueuer`. KEYS: the list of the jobs, the other lists of the queue, its delayed jobs, if the
#: jobs have notices `Keys.notices_open`, if they have listeners `Keys.listen_open` and `Keys.listen_due`, and the
#: record of each job. Records are compared as text: Lua's strings
#: are bytes. The cost is linear in the number and bytes of the jobs, whatever they and the stored records hold.
_SOURCE = (
    """
-- Most calls are about one new job without notices and listeners, of a queue that has jobs in one list only. What
-- is below would decide the same about them, and take longer.
if #ARGV == 6 and ARGV[4] == '0' then
  local list, record_key, queue_limit = KEYS[1], KEYS[#KEYS], tonumber(ARGV[1])
  local waiting = redis.pcall('LLEN', list)
  if type(waiting) == 'number' and (queue_limit == 0 or waiting < queue_limit)
    and redis.call('EXISTS', unpack(KEYS, 2)) == 0 then
    redis.call('SET', record_key, ARGV[5], 'EX', ARGV[2])
    local pushed = redis.pcall('LPUSH', list, ARGV[6])
    if type(pushed) == 'number' then return {0} end
    redis.call('EXPIRE', record_key, 0)
    return pushed
  end
end
"""
    + CHECKED_FUNCTION
    + NOW_FUNCTION
    + """
local queue_limit, record_ttl, digest_bytes = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
-- 1 if the jobs have notices, 2 if they have listeners, 3 for both: then each has its id behind its message. With
-- listeners, their name and the most entries of it are the next two arguments.
local follows = tonumber(ARGV[4])
local notified, listened, values = follows % 2, follows >= 2 and 1 or 0, follows > 0 and 3 or 2
local shared = 4 + 2 * listened  -- the number of the last argument before those of the jobs
local jobs = (#ARGV - shared) / values
local records = #KEYS - jobs  -- the number of the last key before the records
local list, delayed = KEYS[1], records - notified - 2 * listened
local open, listen_open = notified == 1 and KEYS[delayed + 1], listened == 1 and KEYS[records - 1]

-- Nothing is written before each key is known to have its type. Most jobs are new, and most queues have jobs in a
-- single list: one EXISTS finds both.
local waiting = checked('LLEN', list)
if open then checked('ZCARD', open) end
local NEW, REPEATED, CONFLICT, FULL, LISTENERS_FULL = 0, 1, 2, 3, 4
local full = FULL
if listen_open then
  checked('ZCARD', listen_open)
  local name, limit = ARGV[5], tonumber(ARGV[6])
  local entries = checked('ZLEXCOUNT', KEYS[records], '[' .. name .. ':', '(' .. name .. ';')
  if limit > 0 and entries >= limit then full = LISTENERS_FULL end
end
if redis.call('EXISTS', unpack(KEYS, 2)) > 0 then
  for i = 2, LISTS do waiting = waiting + checked('LLEN', KEYS[i]) end
  if redis.call('EXISTS', unpack(KEYS, LISTS + 1, delayed)) > 0 then
    for i = LISTS + 1, delayed - 1 do waiting = waiting + checked('LLEN', KEYS[i]) end
    waiting = waiting + checked('ZCARD', KEYS[delayed])
  end
  if jobs == 1 or redis.call('EXISTS', unpack(KEYS, records + 1)) > 0 then
    for i = records + 1, #KEYS do checked('GETRANGE', KEYS[i], 0, 0) end
  end
end

local room = queue_limit > 0 and queue_limit - waiting or math.huge
if full == LISTENERS_FULL then room = 0 end
local replies, new_messages = {}, {}
for job = 1, jobs do
  local record_key, first = KEYS[records + job], shared + 1 + values * (job - 1)
  local record, message = ARGV[first], ARGV[first + 1]
  if room > #new_messages and redis.call('SET', record_key, record, 'NX', 'EX', record_ttl) then
    new_messages[#new_messages + 1] = message
    replies[job] = NEW
  else
    local stored_digest = redis.call('GETRANGE', record_key, 0, digest_bytes - 1)
    if stored_digest == '' then replies[job] = full
    elseif stored_digest == string.sub(record, 1, digest_bytes) then replies[job] = REPEATED
    else replies[job] = CONFLICT end
  end
end
if #new_messages > 0 then
  local pushed = redis.pcall('LPUSH', list, unpack(new_messages))
  if type(pushed) == 'table' and pushed.err then
    -- A job that is in no list must not count as a repeat when it is submitted again.
    for job, reply in ipairs(replies) do
      if reply == NEW then redis.call('EXPIRE', KEYS[records + job], 0) end
    end
    return pushed
  end
  for job, reply in ipairs(follows > 0 and replies or {}) do
    local id = ARGV[shared + values * job]
    if reply == NEW and open then redis.call('ZADD', open, now_ms(), id) end
    if reply == NEW and listen_open then redis.call('ZADD', listen_open, now_ms(), id) end
  end
end
return replies
""".replace("LISTS", str(len(PRIORITY_STEPS)))
)
ENQUEUE = Script("enqueue", _SOURCE)


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
    #: The listeners of the job have not handled as many ended jobs as may be stored for them.
    LISTENERS_FULL = 4


def encode_instances_within(instances: Sequence[Any], limits: JobLimits) -> bytes:
    """Encode instances as JSON. Raises InvalidInput for values that JSON cannot hold, and over the limits."""
    encoded = encode_instances(instances)
    limits.check_instances(encoded)
    return encoded


class EnqueueGroup(msgspec.Struct, frozen=True, cache_hash=True):
    """The keys and values that calls of the script share. Calls with equal ones may be joined."""

    names: tuple[str, ...]
    values: tuple[Argument, ...]


class Enqueuer:
    """Makes the calls of the script that enqueue jobs of one encoder.

    `queue_limit` is the most jobs the queue may hold: waiting, isolated, retried and delayed ones; 0 for no limit.
    `listen_limit` is the most ended jobs that the listeners of a name may have before them, likewise.
    `record_ttl` is in seconds.
    """

    def __init__(
        self, keys: Keys, encoder: JobEncoder, *, queue_limit: int, listen_limit: int, record_ttl: int
    ) -> None:
        self.encoder = encoder
        self._keys = keys
        template = encoder.template
        #: True if each job has its id behind its message.
        self._has_ids = template.notify is not None or template.listen is not None
        follows = int(template.notify is not None) + 2 * int(template.listen is not None)
        names = _names_of_queue(keys, template.queue, priority_index(template.priority))
        values: tuple[Argument, ...] = (queue_limit, record_ttl, DIGEST_BYTES, follows)
        if template.notify is not None:
            names = (*names, keys.notices_open)
        if template.listen is not None:
            names = (*names, keys.listen_open, keys.listen_due)
            values = (*values, template.listen, listen_limit)
        self._group = EnqueueGroup(names, values)
        self._packed_call = None if self._has_ids else PackedCall(ENQUEUE, names, values)

    def command(self, jobs: Sequence[EncodedJob], submitted_ms: int | None) -> GroupedCommand:
        """Return the call that enqueues at most JOBS_PER_CALL jobs.

        Calls for the same list, with the same limits, may be joined: the script decides about each job.
        `submitted_ms` is as for `JobEncoder.encode_record`. The reply is a list with an `EnqueueResult` for each
        job.
        """
        group, record = self._group, self.encoder.encode_record(submitted_ms)
        arguments, size = list(group.values), len(record) * len(jobs)
        for job in jobs:
            arguments += (job.digest + record, job.message)
            if self._has_ids:
                arguments.append(job.job)
            size += len(job.message)
        names = (*group.names, *[self._keys.job(job.job) for job in jobs])
        return GroupedCommand(
            ("FCALL", ENQUEUE.function, len(names), *names, *arguments),
            ENQUEUE,
            group=group,
            items=len(jobs),
            size=size,
            shared_keys=len(group.names),
            shared_values=len(group.values),
            packed_call=self._packed_call if len(jobs) == 1 else None,
        )


def forget_command(keys: Keys, job: str, record: bytes) -> Command:
    """Return the command that frees the id of a lost job, unless its record changed or it has an outcome."""
    return _FORGET([keys.job(job), keys.result(job)], [record])


@lru_cache(maxsize=1024)
def _names_of_queue(keys: Keys, queue: str, priority: int) -> tuple[str, ...]:
    """Return the keys of a queue in the script's order; `priority` is the index of the list that jobs go to."""
    lists = keys.lists(queue)
    others = [name for name in (*lists, *keys.sources(queue)) if name != lists[priority]]
    return (lists[priority], *dict.fromkeys(others), keys.delayed(queue))
