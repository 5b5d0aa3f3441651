"""PASS TOKENS: wake a worker that sleeps, for each of some queues in which jobs wait (`watch`)."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.connection.commands import Command, Script
from headrace.wire.keys import Keys
from headrace_worker.transport.watch import TOKEN_SECONDS

#: KEYS: for each queue its tokens and its nine lists. ARGV: seconds after which a token expires. A key of another
#: type is passed over. The cost is linear in the number of queues.
_PASS = Script(
    "pass_tokens",
    """
local seconds = ARGV[1]
for first = 1, #KEYS, 10 do
  local tokens = KEYS[first]
  if redis.call('EXISTS', tokens) == 0 and redis.call('EXISTS', unpack(KEYS, first + 1, first + 9)) > 0 then
    redis.call('RPUSH', tokens, 1)
    redis.call('EXPIRE', tokens, seconds)
  end
end
return 1
""",
)


def pass_tokens_command(keys: Keys, queues: Sequence[str]) -> Command:
    """Return the command that pushes a token for each queue in which jobs wait, unless it has one."""
    names = [name for queue in queues for name in (keys.tokens(queue), *keys.sources(queue))]
    return _PASS(names, [TOKEN_SECONDS])
