"""Dead letters in Redis: how a script stores one, and how those that are too many or too old are deleted.

Each letter is under the keys that `headrace.wire.dead_letter` describes, and in one share (`Keys.dead_share`):
that of the jobs of its queue, or that of the queue's malformed messages. The limits hold for each share, so that
no producer can flush the letters of another's model.

An existing letter is never overwritten. A second letter of the same id gets `~2` behind it, a third `~3`, up to
`~9`, and each further one the server's time. A message that is malformed and stored already is one letter.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.connection.commands import Command, Script
from headrace.connection.lua import CHECKED_FUNCTION, NOW_FUNCTION
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys


class DeadLetterLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The most dead letters that each share keeps, and for how many seconds."""

    max_count: int = 100_000
    max_age_seconds: int = 30 * 86_400


#: Lua functions on a table with the keys of dead letters, for scripts that begin with CHECKED_FUNCTION and
#: NOW_FUNCTION. `check_letters` ends the script if a key is of another type. `store_letter` costs a few commands,
#: whatever is stored. `trim_letters` deletes the oldest letters of a share that are too old or too many, at most
#: `limit`, and returns their number. The cost is linear in the letters stored and deleted, and in their bytes.
LETTERS_FUNCTIONS = """
local LAST_NUMBER = 9

local function letter_keys(first)
  return {dead = KEYS[first], messages = KEYS[first + 1], times = KEYS[first + 2], dropped = KEYS[first + 3]}
end

local function check_letters(keys, shares)
  checked('HGET', keys.dead, '')
  checked('HGET', keys.messages, '')
  checked('ZCARD', keys.times)
  local dropped = checked('GET', keys.dropped)
  if dropped and not (#dropped < 16 and string.find(dropped, '^%d+$')) then
    error('WRONGTYPE no number is stored (key ' .. keys.dropped .. ')', 0)
  end
  for _, share in ipairs(shares) do checked('ZCARD', share) end
end

-- Whether this letter is stored already, under its id or beside others of the same id.
local function is_stored(keys, id, line, message, is_malformed)
  local letter_id = id
  for number = 2, LAST_NUMBER + 1 do
    if not redis.call('ZSCORE', keys.times, letter_id) then return false, letter_id end
    if redis.call('HGET', keys.dead, letter_id) == line then return true end
    if is_malformed and redis.call('HGET', keys.messages, letter_id) == message then return true end
    letter_id = id .. '~' .. number
  end
  return false, nil
end

local function store_letter(keys, share, now, id, line, message, is_malformed)
  local exists, letter_id = is_stored(keys, id, line, message, is_malformed)
  if exists then return end
  local moment = now
  while not letter_id do
    local candidate = id .. '~' .. string.format('%.0f', moment)
    if not redis.call('ZSCORE', keys.times, candidate) then letter_id = candidate end
    moment = moment + 1
  end
  redis.call('HSET', keys.messages, letter_id, message)
  redis.call('HSET', keys.dead, letter_id, line)
  redis.call('ZADD', keys.times, now, letter_id)
  redis.call('ZADD', share, now, letter_id)
end

local function trim_letters(keys, share, now, max_count, max_age_seconds, limit)
  local ids = redis.call('ZRANGEBYSCORE', share, '-inf', now - 1000 * max_age_seconds, 'LIMIT', 0, limit)
  local excess = math.min(limit, redis.call('ZCARD', share) - max_count)
  if excess > #ids then ids = redis.call('ZRANGE', share, 0, excess - 1) end
  local dropped = 0
  for _, id in ipairs(ids) do
    redis.call('HDEL', keys.dead, id)
    redis.call('HDEL', keys.messages, id)
    dropped = dropped + redis.call('ZREM', keys.times, id)
    redis.call('ZREM', share, id)
  end
  if dropped > 0 then redis.call('INCRBY', keys.dropped, dropped) end
  return dropped
end
"""

#: KEYS: those of dead letters, then the share. ARGV: 1 for a malformed message, id, line, message.
_STORE = Script(
    "store_dead_letter",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + LETTERS_FUNCTIONS
    + """
local keys, share = letter_keys(1), KEYS[5]
local is_malformed, id, line, message = ARGV[1] == '1', ARGV[2], ARGV[3], ARGV[4]
check_letters(keys, {share})
store_letter(keys, share, now_ms(), id, line, message, is_malformed)
return 1
""",
)

#: KEYS: those of dead letters, then shares. ARGV: most letters of a share, seconds each is kept, most to delete.
#: PERSIST changes nothing: it is a first write that a full Redis does not refuse.
_TRIM = Script(
    "trim_dead_letters",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + LETTERS_FUNCTIONS
    + """
local keys, shares = letter_keys(1), {unpack(KEYS, 5)}
local max_count, max_age_seconds, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
check_letters(keys, shares)
redis.call('PERSIST', keys.times)
local dropped, now = 0, now_ms()
for _, share in ipairs(shares) do
  dropped = dropped + trim_letters(keys, share, now, max_count, max_age_seconds, limit - dropped)
end
return dropped
""",
    flag="allow-oom",
)


def names_of_letters(keys: Keys) -> list[str]:
    """Return the keys of dead letters, in the order of `letter_keys`."""
    return [keys.dead, keys.dead_messages, keys.dead_times, keys.dead_dropped]


def store_command(keys: Keys, letter: DeadLetter, message: bytes) -> Command:
    """Return the command that stores one letter."""
    names = [*names_of_letters(keys), keys.dead_share(letter.queue, malformed=letter.is_malformed)]
    return _STORE(names, [int(letter.is_malformed), letter.id, letter.encode(), message])


def trim_command(keys: Keys, queues: Sequence[str], *, limits: DeadLetterLimits, limit: int) -> Command:
    """Return the command that deletes letters of these queues beyond the limits, at most `limit` of them.

    The reply is their number.
    """
    shares = [keys.dead_share(queue, malformed=malformed) for queue in queues for malformed in (False, True)]
    return _TRIM([*names_of_letters(keys), *shares], [limits.max_count, limits.max_age_seconds, limit])
