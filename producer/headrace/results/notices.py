"""The notice of an outcome, stored in the step that stores the outcome: neither is there without the other.

    accept    the record of the job names its endpoint, and the id of the job is added to `Keys.notices_open`
    outcome   the notice is stored, due at once, and the id is removed

While `notices_open` is empty, no job with a notice is under way, and a script that stores outcomes looks at no
record: one EXISTS a call is all that it costs.
"""

from __future__ import annotations

from headrace.wire.keys import Keys
from headrace.wire.notice import NOTICE_SECONDS
from headrace.wire.record import DIGEST_BYTES, NOTIFY_MARK

#: The most bytes of a record that a notice holds. A longer one is cut, so that it becomes a dead letter.
_MAX_RECORD_BYTES = 65_536

#: Lua functions for scripts that begin with CHECKED_FUNCTION, NOW_FUNCTION and STATUS_FUNCTION.
#: `notice_keys` returns the keys of notices from KEYS[first] on, nil if no job with a notice is under way; it ends
#: the script if a key is of another type. `store_notice` returns whether the record asks for a notice, and stores
#: it. `open_notice` notes that a job with such a record is under way. Each costs a few commands.
NOTICES_FUNCTIONS = (
    """
local function notice_keys(first)
  local keys = {open = KEYS[first], notices = KEYS[first + 1], due = KEYS[first + 2]}
  if redis.call('EXISTS', keys.open) == 0 then return nil end
  checked('ZCARD', keys.open)
  checked('HLEN', keys.notices)
  checked('ZCARD', keys.due)
  return keys
end

-- The id of a job. All keys have the same prefix.
local function job_of(result_key, open) return string.sub(result_key, #open - OPEN_LENGTH + META_LENGTH + 1) end

local function has_notice(record_key)
  return redis.pcall('GETRANGE', record_key, RECORD_START, RECORD_START + MARK_LENGTH - 1) == 'NOTIFY_MARK'
end

local function store_notice(keys, result_key, record_key, ttl)
  if not has_notice(record_key) then return false end
  local job, status = job_of(result_key, keys.open), status_of(result_key)
  local event = status == 'SUCCESS' and 'success' or status == 'FAILURE' and 'failure' or 'cancelled'
  if status == 'REVOKED' and string.find(redis.call('GETRANGE', result_key, 0, 511), '"expired"', 1, true) then
    event = 'expired'
  end
  local record = redis.call('GETRANGE', record_key, RECORD_START, RECORD_START + MAX_RECORD - 1)
  local id, now = job .. '.' .. event, string.format('%.0f', now_ms())
  local notice = '{"job":"' .. job .. '","status":"' .. event .. '","at_ms":' .. now
    .. ',"record":' .. record .. '}'
  redis.call('HSET', keys.notices, id, notice)
  redis.call('ZADD', keys.due, now, id)
  redis.call('ZREM', keys.open, job)
  if tonumber(ttl) < NOTICE_SECONDS then  -- the outcome outlives the attempts to deliver the notice
    redis.call('EXPIRE', result_key, NOTICE_SECONDS)
    redis.call('EXPIRE', record_key, NOTICE_SECONDS)
  end
  return true
end

local function open_notice(open, result_key, record_key)
  if has_notice(record_key) then redis.call('ZADD', open, now_ms(), job_of(result_key, open)) end
end
""".replace("OPEN_LENGTH", str(len(Keys().notices_open)))
    .replace("META_LENGTH", str(len(Keys().result(""))))
    .replace("RECORD_START", str(DIGEST_BYTES))
    .replace("MARK_LENGTH", str(len(NOTIFY_MARK)))
    .replace("NOTIFY_MARK", NOTIFY_MARK.decode())
    .replace("MAX_RECORD", str(_MAX_RECORD_BYTES))
    .replace("NOTICE_SECONDS", str(NOTICE_SECONDS))
)


def names_of_notices(keys: Keys) -> list[str]:
    """Return the keys of notices, in the order of `notice_keys`."""
    return [keys.notices_open, keys.notices, keys.notices_due]
