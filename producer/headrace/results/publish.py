"""Publish outcomes: the first outcome of a job is stored and announced, every later one is refused.

The worker publishes with this code, and so does `cancellation`, so they may race without a job ever ending twice.
The stored and announced text is the one that Celery's own result backend would have written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headrace.connection.commands import Argument, Command, Script
from headrace.connection.lua import CHECKED_FUNCTION, NOW_FUNCTION
from headrace.results.notices import NOTICES_FUNCTIONS, names_of_notices
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, encode_outcome

#: Bytes of a stored result that a script decodes when the status is not first, which holds Redis for microseconds.
_MAX_DECODED_BYTES = 4096

#: A Lua function: return the status that a result key holds, nil if there is none. Headrace and Celery write the
#: status first; JSON of another order is decoded if it is short. The cost has a bound, whatever is stored.
STATUS_FUNCTION = """
local function status_of(key)
  local head = redis.pcall('GETRANGE', key, 0, 63)
  if head == '' or type(head) ~= 'string' then return nil end  -- a key of another type holds no outcome
  local status = string.match(head, '^{%s*"status"%s*:%s*"(%u+)"')
  if not status then
    -- A longer text is cut, and so is no JSON.
    local decoded, stored = pcall(cjson.decode, redis.call('GETRANGE', key, 0, MAX_DECODED_BYTES))
    status = decoded and type(stored) == 'table' and stored.status or nil
  end
  return status
end
""".replace("MAX_DECODED_BYTES", str(_MAX_DECODED_BYTES))

#: A Lua function, for this script and the worker's: store and announce an outcome. It returns 1 if this outcome
#: is the first, else 0. A stored status that is not final (STARTED, RETRY, PENDING) is overwritten. `notices` is
#: the reply of `notice_keys` before the first write; nil stores no notice, and no entry of listeners.
PUBLISH_FUNCTION = (
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + STATUS_FUNCTION
    + NOTICES_FUNCTIONS
    + """
local final = {SUCCESS = true, FAILURE = true, REVOKED = true}
local function publish(result_key, record_key, ttl, outcome, notices)
  if not redis.call('SET', result_key, outcome, 'NX', 'EX', ttl) then
    if final[status_of(result_key)] then return 0 end
    redis.call('SET', result_key, outcome, 'EX', ttl)
  end
  redis.call('EXPIRE', record_key, ttl)
  redis.call('PUBLISH', result_key, outcome)
  if notices then store_notices(notices, result_key, record_key, ttl) end
  return 1
end
"""
)

#: Call it by `publish_command`. The cost is linear in the number and bytes of the outcomes.
SCRIPT = (
    PUBLISH_FUNCTION
    + """
local ttl, replies, notices = ARGV[1], {}, notice_keys(1)
for job = 1, #ARGV - 1 do
  local result_key, record_key, outcome = KEYS[2 * job + 4], KEYS[2 * job + 5], ARGV[1 + job]
  replies[job] = publish(result_key, record_key, ttl, outcome, notices)
end
return replies
"""
)
_PUBLISH = Script("publish_outcomes", SCRIPT)


def publish_command(keys: Keys, finished: Sequence[Outcome], *, ttl: int, now: datetime) -> Command:
    """Return the command that publishes the outcomes of jobs that finished at `now`, for `ttl` seconds.

    The reply is a list: for each outcome, 1 if it was published, 0 if the job had an outcome already.
    """
    names = names_of_notices(keys)
    arguments: list[Argument] = [ttl]
    for outcome in finished:
        names += [keys.result(outcome.job), keys.job(outcome.job)]
        arguments.append(encode_outcome(outcome, now))
    return _PUBLISH(names, arguments)
