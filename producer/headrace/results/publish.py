"""Publish outcomes: the first one of a job is stored and announced, every later one is refused.

The client's `cancel` and the worker's delivery both go through here, so they can race without a job ever
ending twice. What is stored and announced is what Celery's own result backend would have written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headrace.connection.commands import Command, Operation, Script
from headrace.wire import outcome
from headrace.wire.keys import Keys
from headrace.wire.outcome import Cancelled, Outcome

#: Seconds after a cancellation in which workers look for jobs cancelled while they waited.
_LOOKED_FOR = 86_400

#: A Lua function: the status a result key tells, nil where there is none. It stands first in what we and Celery
#: write; only JSON of another order is decoded.
STATUS = """
local function status_of(key)
  local head = redis.pcall('GETRANGE', key, 0, 63)
  if head == '' or type(head) ~= 'string' then return nil end  -- a key of another kind is no outcome
  local status = string.match(head, '^{%s*"status"%s*:%s*"(%u+)"')
  if not status then
    local good, stored = pcall(cjson.decode, redis.call('GET', key))
    status = good and type(stored) == 'table' and stored.status or nil
  end
  return status
end
"""

#: A Lua function, for this script and the worker's: store and announce an outcome; 1 if it was the first, else 0.
#: A state that is no outcome (STARTED, RETRY, PENDING) is overwritten.
FUNCTION = (
    STATUS
    + """
local over = {SUCCESS = true, FAILURE = true, REVOKED = true}
local function publish(result, record, ttl, outcome)
  if not redis.call('SET', result, outcome, 'NX', 'EX', ttl) then
    if over[status_of(result)] then return 0 end
    redis.call('SET', result, outcome, 'EX', ttl)
  end
  redis.call('EXPIRE', record, ttl)
  redis.call('PUBLISH', result, outcome)
  return 1
end
"""
)

#: KEYS: the result key (also the channel) and the record of each job, in turn.
#: ARGV: seconds to keep them; then each outcome as stored.
#: Returns 1 for each outcome that was published, 0 where the job had one already.
SCRIPT = (
    FUNCTION
    + """
local replies = {}
for i = 1, #ARGV - 1 do
  replies[i] = publish(KEYS[2 * i - 1], KEYS[2 * i], ARGV[1], ARGV[i + 1])
end
return replies
"""
)


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


_PUBLISH = Script(SCRIPT)


def cancel(keys: Keys, job: str, *, ttl: int, now: datetime) -> Operation[bool]:
    """Cancel a job unless it has an outcome. Returns whether its outcome is now a cancellation."""
    # First, so that a worker which claims the job from now on looks whether it has an outcome.
    yield Command(("SET", keys.cancelled, 1, "EX", _LOOKED_FOR))
    names, values = call(keys, [Cancelled(job=job)], ttl=ttl, now=now)
    replies = yield _PUBLISH(names, values)
    if replies[0]:
        return True
    # Cancelled before, perhaps by this very call, whose reply was lost.
    stored = yield Command(("GET", keys.result(job)))
    return stored is not None and isinstance(outcome.read(job, stored), Cancelled)
