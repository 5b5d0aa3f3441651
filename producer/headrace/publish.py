"""Publish outcomes: the first one of a job is stored and announced, every later one is refused.

The client's `cancel` and the worker's delivery both go through here, so they can race without a job ever
ending twice. What is stored and announced is what Celery's own result backend would have written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headrace import outcome
from headrace.outcome import Outcome
from headrace.queues import Keys

#: KEYS: the result key (also the channel) and the record of each job, in turn.
#: ARGV: seconds to keep them; then each outcome as stored.
#: Returns 1 for each outcome that was published, 0 where the job had one already.
#: A state that is no outcome (STARTED, RETRY, PENDING) is overwritten. The status stands first in what we
#: and Celery write; only JSON of another order is decoded.
SCRIPT = """
local over = {SUCCESS = true, FAILURE = true, REVOKED = true}
local function ended(key)
  local head = redis.call('GETRANGE', key, 0, 63)
  if head == '' then return false end
  local status = string.match(head, '^{%s*"status"%s*:%s*"(%u+)"')
  if not status then
    local good, stored = pcall(cjson.decode, redis.call('GET', key))
    status = good and type(stored) == 'table' and stored.status
  end
  return over[status] == true
end
local ttl = ARGV[1]
local replies = {}
for i = 1, #ARGV - 1 do
  local result, record = KEYS[2 * i - 1], KEYS[2 * i]
  if ended(result) then
    replies[i] = 0
  else
    redis.call('SET', result, ARGV[i + 1], 'EX', ttl)
    redis.call('EXPIRE', record, ttl)
    redis.call('PUBLISH', result, ARGV[i + 1])
    replies[i] = 1
  end
end
return replies
"""


def call(
    keys: Keys, outcomes: Sequence[Outcome], *, ttl: int, now: datetime
) -> tuple[list[str], list[str | bytes | int]]:
    """KEYS and ARGV of the script. `ttl` is in seconds, `now` the moment the jobs ended."""
    names: list[str] = []
    values: list[str | bytes | int] = [ttl]
    for one in outcomes:
        names += [keys.result(one.job), keys.job(one.job)]
        values.append(outcome.encode(one, now))
    return names, values
