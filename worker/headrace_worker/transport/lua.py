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
