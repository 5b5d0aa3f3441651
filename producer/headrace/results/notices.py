"""The notice of an outcome, stored in the step that stores the outcome: neither is there without the other.

    accept    the record of the job names its endpoint, and the id of the job is added to `Keys.notices_open`
    outcome   the notice is stored, due at once, and the id is removed

The entry of a job with listeners (`headrace.wire.listening`) is stored in the same way, by `Keys.listen_open`.

While both are empty, no job with a notice or with listeners is under way, and a script that stores outcomes looks
at no record: one EXISTS a call is all that it costs.
"""

from __future__ import annotations

from headrace.wire.keys import Keys
from headrace.wire.notice import NOTICE_SECONDS
from headrace.wire.record import DIGEST_BYTES, NAMES_BYTES, NOTIFY_MARK

#: The most bytes of a record that a notice holds. A longer one is cut, so that it becomes a dead letter.
_MAX_RECORD_BYTES = 65_536

#: A Lua function: return the text of an entry (`headrace.wire.listening`). `rest` is its model and job, with a
#: colon between.
ENCODE_ENTRY_FUNCTION = """
local function encode_entry(name, due_ms, deliveries, rest)
  return name .. ':' .. string.format('%013.0f', due_ms) .. ':' .. deliveries .. ':' .. rest
end
"""

#: Lua functions for scripts that begin with CHECKED_FUNCTION, NOW_FUNCTION and STATUS_FUNCTION.
#: `notice_keys` returns the keys of notices from KEYS[first] on, nil if no job with a notice or with listeners is
#: under way; it ends the script if a key is of another type. `store_notice` returns whether the record asks for a
#: notice, and stores it. `store_entry` does so for listeners, and `store_notices` does both. `open_notice` notes
#: that a job with such a record is under way. Each costs a few commands.
NOTICES_FUNCTIONS = (
    ENCODE_ENTRY_FUNCTION
    + """
local function notice_keys(first)
  local keys = {open = KEYS[first], notices = KEYS[first + 1], due = KEYS[first + 2],
    listen_open = KEYS[first + 3], listen_due = KEYS[first + 4]}
  if redis.call('EXISTS', keys.open, keys.listen_open) == 0 then return nil end
  checked('ZCARD', keys.open)
  checked('HLEN', keys.notices)
  checked('ZCARD', keys.due)
  checked('ZCARD', keys.listen_open)
  checked('ZCARD', keys.listen_due)
  return keys
end

-- The id of a job. All keys have the same prefix.
local function job_of(result_key, open) return string.sub(result_key, #open - OPEN_LENGTH + META_LENGTH + 1) end

-- The start of a record, with the names of its endpoint, its listeners and its model.
local function names_of(record_key)
  local names = redis.pcall('GETRANGE', record_key, RECORD_START, RECORD_START + NAMES_LENGTH - 1)
  return type(names) == 'string' and names or ''
end

local function has_notice(names) return string.sub(names, 1, MARK_LENGTH) == 'NOTIFY_MARK' end

-- The listeners that a record names, and its model; nil without listeners.
local function listeners_of(names)
  if has_notice(names) then
    local rest = string.match(names, '^[^"]*",(.*)$', MARK_LENGTH + 1)
    names = '{' .. (rest or '')
  end
  return string.match(names, '^{"l":"([^"]*)","m":"([^"]*)"')
end

-- Both outlive the attempts to deliver.
local function keep_outcome(result_key, record_key, ttl)
  if tonumber(ttl) < NOTICE_SECONDS then
    redis.call('EXPIRE', result_key, NOTICE_SECONDS)
    redis.call('EXPIRE', record_key, NOTICE_SECONDS)
  end
end

local function store_entry(keys, result_key, names, record_key, ttl)
  local name, model = listeners_of(names)
  if not name then return false end
  local job = job_of(result_key, keys.open)
  redis.call('ZADD', keys.listen_due, 0, encode_entry(name, now_ms(), 0, model .. ':' .. job))
  redis.call('ZREM', keys.listen_open, job)
  keep_outcome(result_key, record_key, ttl)
  -- A user who may not publish here leaves the listeners to look by themselves.
  redis.pcall('PUBLISH', string.sub(keys.listen_due, 1, -#'due' - 1) .. name, '')
  return true
end

local function store_notice(keys, result_key, names, record_key, ttl)
  if not has_notice(names) then return false end
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
  keep_outcome(result_key, record_key, ttl)
  return true
end

local function store_notices(keys, result_key, record_key, ttl)
  local names = names_of(record_key)
  store_notice(keys, result_key, names, record_key, ttl)
  store_entry(keys, result_key, names, record_key, ttl)
end

local function open_notice(open, listen_open, result_key, record_key)
  local names = names_of(record_key)
  local job = job_of(result_key, open)
  if has_notice(names) then redis.call('ZADD', open, now_ms(), job) end
  if listeners_of(names) then redis.call('ZADD', listen_open, now_ms(), job) end
end
""".replace("OPEN_LENGTH", str(len(Keys().notices_open)))
    .replace("META_LENGTH", str(len(Keys().result(""))))
    .replace("RECORD_START", str(DIGEST_BYTES))
    .replace("MARK_LENGTH", str(len(NOTIFY_MARK)))
    .replace("NAMES_LENGTH", str(NAMES_BYTES))
    .replace("NOTIFY_MARK", NOTIFY_MARK.decode())
    .replace("MAX_RECORD", str(_MAX_RECORD_BYTES))
    .replace("NOTICE_SECONDS", str(NOTICE_SECONDS))
)


def names_of_notices(keys: Keys) -> list[str]:
    """Return the keys of notices, in the order of `notice_keys`."""
    return [keys.notices_open, keys.notices, keys.notices_due, keys.listen_open, keys.listen_due]
