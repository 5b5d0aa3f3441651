"""The scripts that renew and end leases, and the one that moves delayed jobs that are due."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.connection.commands import Command, Script
from headrace.wire.attempts import CRASH, LEASE_EXPIRED, TIMEOUT, escape_field
from headrace.wire.keys import Keys
from headrace_worker.transport.claims import Lease
from headrace_worker.transport.lua import NOW_FUNCTION

_RENEW = Script(
    "renew_leases",
    NOW_FUNCTION
    + """
local leases = KEYS[1]
local lease_ms = tonumber(ARGV[1])
local expiry, lost = now_ms() + lease_ms, {}
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
    """
local leases, lease = KEYS[1], KEYS[2]
local member = ARGV[1]
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
  local expiry = redis.call('ZSCORE', leases, member)
  if not expiry or (only_if_expired and tonumber(expiry) > now) then return false end
  redis.call('PERSIST', leases)
  return true
end
"""

_REQUEUE = Script(
    "requeue",
    NOW_FUNCTION
    + _MAY_END_FUNCTION
    + """
local leases, lease = KEYS[1], KEYS[2]
local member, only_if_expired, behind, first_message = ARGV[1], ARGV[2] == '1', ARGV[3] == '1', ARGV[4]
local function source_key(source) return KEYS[3 + source] end
local origins = 4  -- the number of the last argument before the origins: source, count, source, count
if not may_end(leases, member, only_if_expired, now_ms()) then return 0 end
local messages, done = redis.call('LRANGE', lease, 0, -1), 0
local push = behind and 'LPUSH' or 'RPUSH'
if first_message ~= '' then messages[1] = first_message end
for i = origins + 1, #ARGV, 2 do
  local source, count = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  for number = math.min(done + count, #messages), done + 1, -1 do
    redis.call(push, source_key(source), messages[number])
  end
  done = done + count
end
redis.call('ZREM', leases, member)
redis.call('DEL', lease)
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
    return _REQUEUE(names, [lease.member, int(only_if_expired), int(behind), first_message, *origins])


_REQUEUE_ISOLATED = Script(
    "requeue_isolated",
    NOW_FUNCTION
    + _MAY_END_FUNCTION
    + """
local leases, lease, isolated, grace = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member, only_if_expired = ARGV[1], ARGV[2] == '1'
local cause, owner, grace_ms = ARGV[3], ARGV[4], tonumber(ARGV[5])
local now = now_ms()
if not may_end(leases, member, only_if_expired, now) then return 0 end
local messages = redis.call('LRANGE', lease, 0, -1)
if #messages == 0 and grace_ms > 0 then
  -- A Redis that was held up may not have ended the BLMOVE of the owner, and may still move a job under the lease.
  -- So the empty lease of a blocking claim is extended when it is found expired. It ends after the extension.
  if redis.call('GET', grace) ~= redis.call('ZSCORE', leases, member) then
    local extended = string.format('%.0f', now + grace_ms)
    redis.call('SET', grace, extended, 'PX', 10 * grace_ms)
    redis.call('ZADD', leases, extended, member)
    return 0
  end
  redis.call('DEL', grace)
end
local attempt = cause .. ',' .. owner .. ',' .. string.format('%.0f', now) .. ',' .. #messages .. ';'
for i = #messages, 1, -1 do
  local history, message
  if string.byte(messages[i]) == 1 then history, message = string.match(messages[i], '^\\1([^\\n]+;)\\n(.*)$') end
  if not history or string.gsub(history, '[^,;]+,[^,;]*,%d+,%d+;', '') ~= '' then
    history, message = '', messages[i]
  end
  redis.call('RPUSH', isolated, '\\1' .. history .. attempt .. '\\n' .. message)
end
redis.call('ZREM', leases, member)
redis.call('DEL', lease)
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
    return _REQUEUE_ISOLATED(
        names, [lease.member, int(only_if_expired), *attempt, _GRACE_MS if lease.blocking else 0]
    )


_EXPIRED = Script(
    "list_expired_leases",
    NOW_FUNCTION
    + """
local leases = KEYS[1]
local limit = ARGV[1]
return redis.call('ZRANGEBYSCORE', leases, '-inf', now_ms(), 'LIMIT', 0, limit)
""",
    flag="no-writes",
)


def expired_command(keys: Keys, *, limit: int) -> Command:
    """Return the command that lists the members of expired leases, at most `limit`."""
    return _EXPIRED([keys.leases], [limit])


#: A job that was lost with its process runs alone from then on. The others go to the list of their priority: the
#: first `"priority":` of the message, as its body is base64.
_MOVE_DUE = Script(
    "move_due_jobs",
    NOW_FUNCTION
    + """
local delayed, isolated = KEYS[1], KEYS[2]
local function priority_list(priority) return KEYS[3 + math.min(3, math.floor(priority / 3))] end
local limit = ARGV[1]
local lost_causes = 1  -- the number of the last argument before the causes
local function was_lost(message)
  if string.byte(message) ~= 1 then return false end
  local history = ';' .. (string.match(message, '^\\1([^\\n]*)\\n') or '')
  for i = lost_causes + 1, #ARGV do
    if string.find(history, ';' .. ARGV[i] .. '[@,]') then return true end
  end
  return false
end
local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now_ms(), 'LIMIT', 0, limit)
redis.call('PERSIST', delayed)
for _, message in ipairs(due) do
  if was_lost(message) then
    redis.call('LPUSH', isolated, message)
  else
    local priority = tonumber(string.match(message, '"priority":%s*(%d+)') or '0')
    redis.call('LPUSH', priority_list(priority), message)
  end
  redis.call('ZREM', delayed, message)
end
return #due
""",
    flag="allow-oom",
)


def move_due_command(keys: Keys, queue: str, *, limit: int) -> Command:
    """Return the command that moves delayed jobs that are due to the lists of their queue, at most `limit`.

    The reply is their number.
    """
    return _MOVE_DUE([keys.delayed(queue), *keys.sources(queue)], [limit, CRASH, LEASE_EXPIRED, TIMEOUT])
