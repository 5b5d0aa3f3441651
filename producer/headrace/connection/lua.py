"""Lua functions that scripts of several packages begin with.

Redis does not undo a script that fails half way. So a script reads each key that it is about to write before its
first write: a key of another type then ends the script while nothing has changed. `checked` is the call for that,
as its error names the key. A key that is only deleted, expired or overwritten whole needs no check.
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
