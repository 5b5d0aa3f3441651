"""CLAIM: claim waiting messages of one queue under a new lease, or park a lease while nothing waits.

Redis does not undo a script that fails half way. So CLAIM takes before it records the lease, and when it has taken
a message no error can end it. A list that is a key of another type is passed over, so that it stops no other list;
if nothing is claimed, its error is the reply.

Jobs of the lowest priority, those of files, share no claim with others: an online job would be published after all
of them. They are claimed when no other job waits, and first in one claim of ten.

CLAIM never reads a message: its cost is linear in the number of queues, and in the number and bytes of the
messages that it claims, whatever they hold. `SORT ... BY nosort` copies those of the first list to the lease: they
do not pass through Lua, which would hash each byte, nor again into the append-only file and to replicas. So the
worker reads the messages of a lease by the command behind CLAIM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.connection.commands import Argument, Command, Script
from headrace.connection.lua import CHECKED_FUNCTION, NOW_FUNCTION
from headrace.wire.keys import Keys
from headrace.wire.queues import CLAIM_ORDER, FIRST_RETRIED_SOURCE, FIRST_SOURCE, ISOLATED_SOURCE, PRIORITY_STEPS
from headrace_worker.transport.claims import (
    Claim,
    ClaimLimits,
    IsolatedTurn,
    Lease,
    NothingClaimed,
    pair_origins,
)
from headrace_worker.transport.watch import TOKEN_SECONDS

#: Call it by `claim_command`. `source` is an index in `Keys.sources`: 0 are the isolated jobs, 1 to 4 the lists by
#: priority, 5 to 8 the retried jobs by priority. Returns {number of the queue, {source, count, ...}, messages that
#: are under no lease, 1 if a job was cancelled lately, server's milliseconds, 1 if the queue is empty now}. If
#: nothing is claimed, {0, {numbers of the queues that fill up}, 1 if a lease is parked}.
_SOURCE = (
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + """
local leases, cancelled, lease, parked_lease = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local name, lease_ms, lowest_first, isolated_turn = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4]
local retried_first = ARGV[5] == '1'
local parked_member, parked_queue, parked_source = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local queues = (#ARGV - 8) / 5
local has_tokens = #KEYS > 4 + 9 * queues

local function source_key(queue, source) return KEYS[5 + 9 * (queue - 1) + source] end
local function token_key(queue) return KEYS[4 + 9 * queues + queue] end
local function queue_name(queue) return ARGV[9 + 5 * (queue - 1)] end
local function max_jobs(queue) return tonumber(ARGV[10 + 5 * (queue - 1)]) end
local function max_bytes(queue) return tonumber(ARGV[11 + 5 * (queue - 1)]) end
local function full_only(queue) return ARGV[12 + 5 * (queue - 1)] == '1' end
local function leased(queue) return ARGV[13 + 5 * (queue - 1)] == '1' end

checked('ZCARD', leases)
checked('LLEN', lease)
-- `claimed` counts the messages that were moved to the lease, and those in `messages`, which are to follow them.
local claimed, messages, bytes, largest, origins, refusal = 0, {}, 0, 0, {}, nil

-- Whether a queue has isolated or retried jobs. Few have, so one command asks for the five lists.
local run_again = {}
local function has_jobs_that_run_again(queue)
  if run_again[queue] == nil then
    run_again[queue] = redis.call(
      'EXISTS', source_key(queue, 0), source_key(queue, 5), source_key(queue, 6), source_key(queue, 7),
      source_key(queue, 8)) > 0
  end
  return run_again[queue]
end

-- Whether a queue has no job at all. An idle worker takes the only job: one command tells that nothing is left.
local is_drained = false
local function check_drained(queue)
  local first = 5 + 9 * (queue - 1)
  is_drained = redis.call('EXISTS', unpack(KEYS, first, first + 8)) == 0
  return is_drained
end

-- Redis 6.2 walks the list for an RPOP with a count: 14 ms at a million jobs. 7.0 brought REDIS_VERSION_NUM.
local rpop_walks = redis.REDIS_VERSION_NUM == nil

local function pop_messages(key, count)
  if not rpop_walks then return redis.pcall('RPOP', key, count) end
  local message = redis.pcall('RPOP', key)
  return type(message) == 'string' and {message} or message
end

-- The number of messages of this size that fit.
local function fitting(job_limit, byte_limit, size)
  return math.min(job_limit - claimed, math.max(1, math.floor((byte_limit - bytes) / size)))
end

-- Move as many messages of a list as fit if all have the size of the first. Redis 6.2 would walk the list for this
-- SORT. If Redis refuses, as it is full or the user may not, nothing is moved. Returns true if the list is empty.
local function move(key, job_limit, byte_limit)
  local oldest = redis.pcall('LINDEX', key, -1)
  if not oldest then return true end
  if type(oldest) ~= 'string' then return end
  local count = fitting(job_limit, byte_limit, #oldest)
  local moved = count > 1 and redis.pcall('SORT', key, 'BY', 'nosort', 'DESC', 'LIMIT', 0, count, 'STORE', lease)
  if type(moved) ~= 'number' then return end
  if redis.pcall('LTRIM', key, 0, -moved - 1).err then
    redis.call('DEL', lease)
    return
  end
  claimed, bytes, largest = moved, moved * #oldest, #oldest
  return moved < count
end

local function pop(queue, source, job_limit, byte_limit)
  local before, is_emptied = claimed, false
  if claimed == 0 and job_limit > 1 and leased(queue) and not rpop_walks then
    is_emptied = move(source_key(queue, source), job_limit, byte_limit)
    if claimed == 1 then check_drained(queue) end
  end
  while claimed < job_limit and bytes < byte_limit and not is_emptied do
    -- The size of a message is known only after the pop: pop one, then as many of the largest size as fit.
    local count = 1
    if largest > 0 and not rpop_walks then count = fitting(job_limit, byte_limit, largest) end
    local popped = pop_messages(source_key(queue, source), count)
    if not popped then break end
    if popped.err then
      refusal = refusal or redis.error_reply(popped.err .. ' (key ' .. source_key(queue, source) .. ')')
      break
    end
    for _, message in ipairs(popped) do
      messages[#messages + 1] = message
      claimed, bytes = claimed + 1, bytes + #message
      if #message > largest then largest = #message end
    end
    if #popped < count or (claimed == 1 and check_drained(queue)) then break end
  end
  if claimed > before then
    origins[#origins + 1] = source
    origins[#origins + 1] = claimed - before
  end
  return claimed > before
end

local function record_claim(queue)
  local now = now_ms()
  if leased(queue) then
    local first = 1
    while first <= #messages do  -- Lua's stack holds no more than a few thousand values
      redis.call('RPUSH', lease, unpack(messages, first, math.min(first + 999, #messages)))
      first = first + 1000
    end
    local member = name .. '#' .. table.concat(origins, ',') .. '#' .. queue_name(queue)
    redis.call('ZADD', leases, now + lease_ms, member)
    messages = {}
  end
  if parked_member ~= '' then
    redis.call('ZREM', leases, parked_member)
    redis.call('DEL', parked_lease)
  end
  -- Wake another worker for the jobs that this one leaves: it may have no more, or they share no claim with these.
  if has_tokens then
    local tokens = token_key(queue)
    if not is_drained and not check_drained(queue) and redis.call('EXISTS', tokens) == 0 then
      redis.pcall('RPUSH', tokens, 1)
      redis.pcall('EXPIRE', tokens, TOKEN_SECONDS)
    end
  end
  return {queue, origins, messages, redis.call('EXISTS', cancelled), now, is_drained and 1 or 0}
end

local first, last, step = 1, 4, 1
if lowest_first then first, last, step = 4, 1, -1 end

local function pop_priority(queue, source)
  local job_limit, byte_limit = max_jobs(queue), max_bytes(queue)
  local has_retried = has_jobs_that_run_again(queue)
  if has_retried and retried_first then pop(queue, source + 4, job_limit, byte_limit) end
  if not is_drained then pop(queue, source, job_limit, byte_limit) end
  if has_retried and not (retried_first or is_drained) then pop(queue, source + 4, job_limit, byte_limit) end
  return claimed > 0
end

local function is_lowest(source) return source % 4 == 0 end  -- sources 4 and 8: priority 9, first or retried

-- Fill a claim that has jobs of a source with those that share a claim with them. `is_empty`: that source is.
local function fill_and_record(queue, claimed_source, is_empty)
  for source = first, last, step do
    if is_drained then break end
    if is_lowest(source) == is_lowest(claimed_source) and not (is_empty and source == claimed_source) then
      pop_priority(queue, source)
    end
  end
  return record_claim(queue)
end

if parked_member ~= '' then  -- a job that arrived under the parked lease is the first of this claim
  messages = redis.pcall('LRANGE', parked_lease, 0, -1)
  if messages.err then
    -- The lease was ended while this worker was stopped, and is fenced. All its BLMOVEs have their replies.
    checked('GET', parked_lease)
    redis.call('DEL', parked_lease)
    messages = {}
  end
  if #messages > 0 then
    claimed, bytes, largest, origins = #messages, #messages[1], #messages[1], {parked_source, #messages}
    redis.call('PERSIST', leases)
    check_drained(parked_queue)
    return fill_and_record(parked_queue, parked_source, false)
  end
end

local function claim_isolated()  -- each runs alone
  for queue = 1, queues do
    if has_jobs_that_run_again(queue) and pop(queue, 0, 1, 1) then return record_claim(queue) end
  end
end
if isolated_turn == 'first' then
  local reply = claim_isolated()
  if reply then return reply end
end

local filling, is_skipped = {}, {}
for queue = 1, queues do
  if full_only(queue) then
    local waiting = 0
    for source = 1, has_jobs_that_run_again(queue) and 8 or 4 do
      local length = redis.pcall('LLEN', source_key(queue, source))
      if type(length) == 'number' then waiting = waiting + length end
    end
    if waiting < max_jobs(queue) then
      is_skipped[queue] = true
      if waiting > 0 then filling[#filling + 1] = queue end
    end
  end
end

for source = first, last, step do
  for queue = 1, queues do
    if not is_skipped[queue] and pop_priority(queue, source) then return fill_and_record(queue, source, true) end
  end
end

if isolated_turn == 'last' then
  local reply = claim_isolated()
  if reply then return reply end
end

if refusal then return refusal end
if parked_member ~= '' then redis.call('ZADD', leases, now_ms() + lease_ms, parked_member) end
return {0, filling, parked_member ~= '' and 1 or 0}
"""
)
CLAIM = Script("claim", _SOURCE.replace("TOKEN_SECONDS", str(TOKEN_SECONDS)), flag="allow-oom")

# Facts that CLAIM counts on, not checks.
assert (ISOLATED_SOURCE, FIRST_SOURCE, FIRST_RETRIED_SOURCE, len(PRIORITY_STEPS)) == (0, 1, 5, 4)  # noqa: S101
assert CLAIM_ORDER == (0, 5, 1, 6, 2, 7, 3, 8, 4)  # noqa: S101


def claim_command(
    keys: Keys,
    name: str,
    limits: Sequence[ClaimLimits],
    *,
    lease_ms: int,
    lowest_first: bool,
    isolated: IsolatedTurn = "first",
    retried_first: bool = True,
    parked: Lease | None = None,
    tokens: bool = False,
) -> Command:
    """Return the command that claims from the first of these queues that has jobs.

    `messages_command` is to be sent behind it; `decode_claim` reads both replies.

    `name` is the name of the new lease, `lease_ms` the milliseconds until it expires. `lowest_first` starts with
    the lowest priority, `retried_first` with the retried jobs of each priority. `isolated` says when an isolated
    job is claimed. `parked` is a lease of one of the queues: a job that arrived under it is claimed first, it ends
    when anything is claimed, and it is parked again when nothing is. `tokens` wakes a worker that sleeps if jobs
    are left that this one may not have.
    """
    names = [keys.leases, keys.cancelled, keys.lease(name), keys.lease(parked.name if parked else name)]
    arguments: list[Argument] = [name, lease_ms, int(lowest_first), isolated, int(retried_first)]
    if parked is None:
        arguments += ["", 0, 0]
    else:
        queue = next(number for number, limit in enumerate(limits, start=1) if limit.queue == parked.queue)
        arguments += [parked.member, queue, parked.origins[0][0]]
    for limit in limits:
        names += keys.sources(limit.queue)
        arguments += [limit.queue, limit.jobs, limit.bytes, int(limit.full_only), int(limit.leased)]
    if tokens:
        names += [keys.tokens(limit.queue) for limit in limits]
    return CLAIM(names, arguments)


def messages_command(keys: Keys, name: str) -> Command:
    """Return the command that reads the messages of a claim, given the name of its lease."""
    return Command(("LRANGE", keys.lease(name), 0, -1))


def decode_claim(
    reply: Sequence[Any], leased_messages: Any, name: str, limits: Sequence[ClaimLimits], monotonic: float
) -> Claim | NothingClaimed:
    """Decode the replies to `claim_command`, given its `name` and `limits`, and to `messages_command`.

    `monotonic` is the moment the replies were read, by this machine's monotonic clock in seconds.
    """
    queue, numbers, *details = reply
    if not queue:
        return NothingClaimed(tuple(limits[number - 1].queue for number in numbers), parked=bool(details[0]))
    messages, is_cancelled, now_ms, is_drained = details
    lease = Lease(name=name, queue=limits[queue - 1].queue, origins=pair_origins(numbers))
    if limits[queue - 1].leased:
        messages = leased_messages
        if not isinstance(messages, list) or len(messages) != sum(count for _, count in lease.origins):
            return NothingClaimed((), is_lost=True)
    return Claim(
        lease=lease,
        queued_messages=messages,
        check_outcomes=bool(is_cancelled),
        claimed_ms=now_ms,
        claimed_monotonic=monotonic,
        is_queue_empty=bool(is_drained),
    )
