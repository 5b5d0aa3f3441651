"""Lua functions that several scripts begin with.

In a full Redis, a script is refused if its first write takes memory. So the scripts that end a lease begin with a
write that takes none: PERSIST, which changes nothing, as no lease has a time to live. They remove the lease last:
if one of them fails half way, its messages are still under their lease.

All times are the server's. Every key that a script uses is declared in KEYS.
"""

from __future__ import annotations

#: A Lua function: the server's time in unix milliseconds.
NOW_FUNCTION = """
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

#: A Lua function: delete dead letters that are too old or too many, the oldest first, at most `limit`. It returns
#: their number.
TRIM_FUNCTION = """
local function trim_dead_letters(dead, messages, times, dropped, now, max_count, max_age_seconds, limit)
  local ids = redis.call('ZRANGEBYSCORE', times, '-inf', now - 1000 * max_age_seconds, 'LIMIT', 0, limit)
  local excess = math.min(limit, redis.call('ZCARD', times) - max_count)
  if excess > #ids then ids = redis.call('ZRANGE', times, 0, excess - 1) end
  for _, id in ipairs(ids) do
    redis.call('HDEL', dead, id)
    redis.call('HDEL', messages, id)
    redis.call('ZREM', times, id)
  end
  if #ids > 0 then redis.call('INCRBY', dropped, #ids) end
  return #ids
end
"""
