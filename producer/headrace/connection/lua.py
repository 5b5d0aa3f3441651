"""Lua functions that scripts of several packages begin with.

Redis does not undo a script that fails half way. So a script reads each key that it is about to write before its
first write: a key of another type then ends the script while nothing has changed. `checked` is the call for that,
as its error names the key. A key that is only deleted, expired or overwritten whole needs no check.

In a full Redis, a script is refused if its first write takes memory. So the scripts that end a lease begin with a
write that takes none: PERSIST, which changes nothing, as no lease has a time to live. They remove the lease last:
if one of them fails half way, its messages are still under their lease.

All times are the server's. Every key that a script uses is declared in KEYS.
"""

from __future__ import annotations

#: A Lua function: call a command that reads a key. An error, such as that of a key of another type, names the key.
CHECKED_FUNCTION = """
local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then error(reply.err .. ' (key ' .. key .. ')', 0) end
  return reply
end
"""

#: A Lua function: the server's time in unix milliseconds.
NOW_FUNCTION = """
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
