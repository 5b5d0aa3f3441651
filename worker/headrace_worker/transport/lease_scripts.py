"""The scripts that renew and end leases, and the one that moves delayed jobs that are due.

None reads a message, so that no message can hold up Redis: their cost is linear in the number of messages that
they move and in their bytes. Each reads all its keys before it writes, so that a key of another type changes
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.connection.commands import Command, Script
from headrace.connection.lua import CHECKED_FUNCTION, NOW_FUNCTION
from headrace.wire.attempts import escape_field
from headrace.wire.keys import Keys
from headrace.wire.queues import holds_histories
from headrace_worker.transport.claims import Lease

_RENEW = Script(
    "renew_leases",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + """
local leases = KEYS[1]
local lease_ms = tonumber(ARGV[1])
local expiry, lost = now_ms() + lease_ms, {}
checked('ZCARD', leases)
redis.call('PERSIST', leases)
for i = 2, #ARGV do
  local member = ARGV[i]
  if redis.call('ZSCORE', leases, member) then
    redis.call('ZADD', leases, expiry, member)
  else
    lost[#lost + 1] = member
  end
end
return lost
""",
    flag="allow-oom",
)


def renew_command(keys: Keys, members: Sequence[bytes], *, lease_ms: int) -> Command:
    """Return the command that lets leases expire `lease_ms` from now. The reply lists the lost members."""
    return _RENEW([keys.leases], [lease_ms, *members])


_FINISH = Script(
    "finish_claim",
    CHECKED_FUNCTION
    + """
local leases, lease = KEYS[1], KEYS[2]
local member = ARGV[1]
checked('ZCARD', leases)
checked('LLEN', lease)
redis.call('DEL', lease)
return redis.call('ZREM', leases, member)
""",
    flag="allow-oom",
)


def finish_command(keys: Keys, lease: Lease) -> Command:
    """Return the command that deletes a lease with its messages. The reply is 1 if the lease was held."""
    return _FINISH([keys.leases, keys.lease(lease.name)], [lease.member])


#: A Lua function: whether a lease may be ended. One that is missing belongs to nobody any more.
_MAY_END_FUNCTION = """
local function may_end(leases, member, only_if_expired, now)
  local expiry = checked('ZSCORE', leases, member)
  return expiry and not (only_if_expired and tonumber(expiry) > now)
end
"""

#: Seconds for which the bytes of a BLMOVE may still be under way after its lease was ended: from a connection that
#: was given up, or from a process that was stopped before it sent them. TCP gives up sooner.
FENCE_SECONDS = 3600

#: A Lua function: end a lease. BLMOVE cannot look whether its lease is still a member of `leases`: it would move a
#: job under a lease that was ended, where nobody finds the job. So the empty lease of a blocking claim leaves a
#: string in place of its list. Redis refuses to move a job there.
_END_LEASE_FUNCTION = """
local function end_lease(leases, member, lease, is_fenced)
  redis.call('ZREM', leases, member)
  redis.call('DEL', lease)
  if is_fenced then redis.call('SET', lease, 'ended', 'EX', FENCE_SECONDS) end
end
""".replace("FENCE_SECONDS", str(FENCE_SECONDS))

_REQUEUE = Script(
    "requeue",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + _MAY_END_FUNCTION
    + _END_LEASE_FUNCTION
    + """
local leases, lease = KEYS[1], KEYS[2]
local member, only_if_expired, behind, first_message = ARGV[1], ARGV[2] == '1', ARGV[3] == '1', ARGV[4]
local is_blocking = ARGV[5] == '1'
local function source_key(source) return KEYS[3 + source] end
local origins = 5  -- the number of the last argument before the origins: source, count, source, count
if not may_end(leases, member, only_if_expired, now_ms()) then return 0 end
local messages, done = checked('LRANGE', lease, 0, -1), 0
for i = origins + 1, #ARGV, 2 do checked('LLEN', source_key(tonumber(ARGV[i]))) end
redis.call('PERSIST', leases)
local push = behind and 'LPUSH' or 'RPUSH'
if first_message ~= '' then messages[1] = first_message end
for i = origins + 1, #ARGV, 2 do
  local source, count = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  for number = math.min(done + count, #messages), done + 1, -1 do
    redis.call(push, source_key(source), messages[number])
  end
  done = done + count
end
end_lease(leases, member, lease, is_blocking and #messages == 0)
return #messages
""",
    flag="allow-oom",
)


def requeue_command(
    keys: Keys, lease: Lease, *, only_if_expired: bool, behind: bool, first_message: bytes
) -> Command:
    """Return the command that requeues a lease's messages where they came from. The reply is their number.

    With `behind` they go behind all messages that wait there. `first_message` replaces the first message, unless
    it is empty.
    """
    names = [keys.leases, keys.lease(lease.name), *keys.sources(lease.queue)]
    origins = [number for origin in lease.origins for number in origin]
    flags = (int(only_if_expired), int(behind), first_message, int(lease.blocking))
    return _REQUEUE(names, [lease.member, *flags, *origins])


#: The line of an attempt goes in front of a message. Of the message only the first byte is read: it says whether
#: lines follow already. They count only in a message from a list that producers cannot write. In front of any
#: other, the line is followed by the empty line that ends a history.
_REQUEUE_ISOLATED = Script(
    "requeue_isolated",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + _MAY_END_FUNCTION
    + _END_LEASE_FUNCTION
    + """
local leases, lease, isolated, grace = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member, only_if_expired = ARGV[1], ARGV[2] == '1'
local cause, owner, grace_ms = ARGV[3], ARGV[4], tonumber(ARGV[5])
local origins = 5  -- the number of the last argument before the origins: 1 if histories count, and count
local now = now_ms()
if not may_end(leases, member, only_if_expired, now) then return 0 end
local messages = checked('LRANGE', lease, 0, -1)
checked('LLEN', isolated)
if #messages == 0 and grace_ms > 0 then
  -- A Redis that was held up may not have ended the BLMOVE of the owner, and may still move a job under the lease.
  -- So the empty lease of a blocking claim is extended when it is found expired. It ends after the extension.
  if checked('GET', grace) ~= redis.call('ZSCORE', leases, member) then
    redis.call('PERSIST', leases)
    local extended = string.format('%.0f', now + grace_ms)
    redis.call('SET', grace, extended, 'PX', 10 * grace_ms)
    redis.call('ZADD', leases, extended, member)
    return 0
  end
  redis.call('DEL', grace)
end
redis.call('PERSIST', leases)
local line = '\\1' .. cause .. ',' .. owner .. ',' .. string.format('%.0f', now) .. ',' .. #messages .. '\\n'
local has_histories, last = {}, 0
for i = origins + 1, #ARGV, 2 do
  local count = tonumber(ARGV[i + 1])
  for number = last + 1, math.min(last + count, #messages) do has_histories[number] = ARGV[i] == '1' end
  last = last + count
end
for i = #messages, 1, -1 do
  local is_first_attempt = not has_histories[i] or string.byte(messages[i]) ~= 1
  redis.call('RPUSH', isolated, line .. (is_first_attempt and '\\n' or '') .. messages[i])
end
end_lease(leases, member, lease, grace_ms > 0 and #messages == 0)
return #messages
""",
    flag="allow-oom",
)
#: The milliseconds by which the empty lease of a blocking claim is extended when it is found expired.
_GRACE_MS = 10_000


def requeue_isolated_command(
    keys: Keys, lease: Lease, *, only_if_expired: bool, cause: str, owner: str
) -> Command:
    """Return the command that ends a lease and queues its jobs to run alone, each with one attempt more.

    The attempt has `cause` and `owner` (`headrace.wire.attempts`). The reply is the number of jobs.
    """
    names = [keys.leases, keys.lease(lease.name), keys.isolated(lease.queue), keys.grace(lease.name)]
    attempt = (escape_field(cause), escape_field(owner))
    origins = [number for source, count in lease.origins for number in (int(holds_histories(source)), count)]
    return _REQUEUE_ISOLATED(
        names,
        [lease.member, int(only_if_expired), *attempt, _GRACE_MS if lease.blocking else 0, *origins],
    )


_EXPIRED = Script(
    "list_expired_leases",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + """
local leases = KEYS[1]
local skip, limit = ARGV[1], ARGV[2]
local now, first = now_ms(), checked('ZRANGE', leases, skip, skip, 'WITHSCORES')
if not first[1] then return {-1} end
if tonumber(first[2]) > now then return {math.ceil(first[2] - now)} end
local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', skip, limit)
table.insert(expired, 1, 0)
return expired
""",
    flag="no-writes",
)


def expired_command(keys: Keys, *, skip: int, limit: int) -> Command:
    """Return the command that lists the members of expired leases, at most `limit`, without the first `skip`.

    The reply begins with a number: the milliseconds until the first lease expires if none has expired, -1 if there
    is none, and 0 if members follow.
    """
    return _EXPIRED([keys.leases], [skip, limit])


#: The list that a job goes to is the first byte of its member: a digit, the index in `Keys.sources`. A member of
#: another form goes whole to the list of priority 0, whose messages have no history. The cost is linear in the
#: number of jobs moved and in their bytes.
_MOVE_DUE = Script(
    "move_due_jobs",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + """
local delayed = KEYS[1]
local sources = #KEYS - 1
local function source_key(source) return KEYS[2 + source] end
local limit = ARGV[1]
local due = checked('ZRANGEBYSCORE', delayed, '-inf', now_ms(), 'LIMIT', 0, limit)
if #due == 0 then return 0 end
for source = 0, sources - 1 do checked('LLEN', source_key(source)) end
redis.call('PERSIST', delayed)
for _, member in ipairs(due) do
  local source, message = (string.byte(member) or 0) - string.byte('0'), string.sub(member, 2)
  if source < 0 or source >= sources then source, message = 1, member end
  redis.call('LPUSH', source_key(source), message)
  redis.call('ZREM', delayed, member)
end
return #due
""",
    flag="allow-oom",
)


def move_due_command(keys: Keys, queue: str, *, limit: int) -> Command:
    """Return the command that moves delayed jobs that are due to the lists of their queue, at most `limit`.

    The reply is their number.
    """
    return _MOVE_DUE([keys.delayed(queue), *keys.sources(queue)], [limit])


#: KEYS: pairs of a foreign list and the list that takes its jobs. Both are read first, so that a key of another
#: type leaves everything as it is.
_GATHER = Script(
    "gather_foreign_jobs",
    """
local limit, moved = tonumber(ARGV[1]), 0
for i = 1, #KEYS, 2 do
  local waiting, target = redis.pcall('LLEN', KEYS[i]), redis.pcall('LLEN', KEYS[i + 1])
  if type(waiting) == 'number' and type(target) == 'number' then
    for _ = 1, math.min(waiting, limit - moved) do
      redis.call('LPUSH', KEYS[i + 1], redis.call('RPOP', KEYS[i]))
      moved = moved + 1
    end
  end
end
return moved
""",
    flag="allow-oom",
)


def gather_command(keys: Keys, queue: str, *, limit: int) -> Command:
    """Return the command that moves jobs from a queue's foreign lists to its own, at most `limit`, in their order.

    The reply is their number.
    """
    names = [name for pair in keys.foreign_lists(queue) for name in pair]
    return _GATHER(names, [limit])
