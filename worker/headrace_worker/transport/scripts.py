"""The scripts of a claim, as Redis runs them. `scripts` says what each is for, and has its function.

Redis does not undo a script that fails half way, and in a full Redis it refuses a script whose first write
takes memory. So a claim pops before it records, and once it has popped nothing can stop it; the others begin
with a write that takes no memory (PERSIST, which changes nothing here), and remove the lease last. Where one
of them fails, its jobs are still under their lease. Time is the server's. All keys are declared.
"""

from __future__ import annotations

from headrace.results.publish import PUBLISH_FUNCTION

# KEYS: leases, the new lease, cancelled, the lease that stands while nothing waits; then the five sources of each
# queue. ARGV: name of the lease, how long it lasts (ms), '1' to take the lowest priority first, the member of the
# lease that stands or '', its queue (from 1) and source; then name, jobs, bytes, '1' for full_only and '1' for
# leased of each queue.
# Returns {queue (from 1), {source, count, ...}, frames, 1 if a job was cancelled lately, the moment (ms)}, or
# {0, {queues held}, 1 if the lease stands}. One that stands has half a millisecond in its score.
CLAIM = """
local leases, lease, name, lasts, lowest = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local standing = ARGV[4]
local queues = (#KEYS - 4) / 5
local frames, bytes, largest, origins = {}, 0, 0, {}
redis.call('ZCARD', leases)  -- where it is a key of another kind, fail now: nothing is popped yet

local function source(queue, index) return KEYS[5 + 5 * (queue - 1) + index] end
local function ask(queue, field) return ARGV[6 + 5 * (queue - 1) + field] end

local function take(queue, index, jobs, room)
  local before = #frames
  while #frames < jobs and bytes < room do
    -- How large a message is shows only when it is popped: one first, then as many as its like would fit.
    local count = 1
    if largest > 0 then
      count = math.min(jobs - #frames, math.max(1, math.floor((room - bytes) / largest)))
    end
    -- Once something is popped, an error (a key of another kind) must not end the script.
    local popped = (#frames > 0 and redis.pcall or redis.call)('RPOP', source(queue, index), count)
    if not popped or popped.err then break end
    for _, frame in ipairs(popped) do
      frames[#frames + 1] = frame
      bytes = bytes + #frame
      if #frame > largest then largest = #frame end
    end
    if #popped < count then break end
  end
  if #frames > before then
    origins[#origins + 1] = index
    origins[#origins + 1] = #frames - before
  end
  return #frames > before
end

local function moment()
  local at = redis.call('TIME')
  return at[1] * 1000 + math.floor(at[2] / 1000)
end

local function hold(queue)
  local now = moment()
  if ask(queue, 5) == '1' then
    local first = 1
    while first <= #frames do  -- Lua's stack takes no more than a few thousand values at once
      redis.call('RPUSH', lease, unpack(frames, first, math.min(first + 999, #frames)))
      first = first + 1000
    end
    redis.call('ZADD', leases, now + lasts, name .. '#' .. table.concat(origins, ',') .. '#' .. ask(queue, 1))
  end
  if standing ~= '' then
    redis.call('ZREM', leases, standing)
    redis.call('DEL', KEYS[4])
  end
  return {queue, origins, frames, redis.call('EXISTS', KEYS[3]), now}
end

local function fill(queue, first, last, step, but)
  for index = first, last, step do
    if index ~= but then take(queue, index, tonumber(ask(queue, 2)), tonumber(ask(queue, 3))) end
  end
  return hold(queue)
end

local first, last, step = 1, 4, 1
if lowest then first, last, step = 4, 1, -1 end

if standing ~= '' then  -- what has come under the lease that stood is the first of this claim
  frames = redis.call('LRANGE', KEYS[4], 0, -1)
  if #frames > 0 then
    bytes, largest, origins = #frames[1], #frames[1], {tonumber(ARGV[6]), #frames}
    redis.call('PERSIST', leases)
    return fill(tonumber(ARGV[5]), first, last, step)
  end
end

for queue = 1, queues do  -- what was lost with its worker runs first, and alone
  if take(queue, 0, 1, 1) then return hold(queue) end
end

local held, holding = {}, {}
for queue = 1, queues do
  if ask(queue, 4) == '1' then
    local waiting = 0
    for index = 1, 4 do waiting = waiting + redis.call('LLEN', source(queue, index)) end
    if waiting < tonumber(ask(queue, 2)) then
      holding[queue] = true
      if waiting > 0 then held[#held + 1] = queue end
    end
  end
end

for index = first, last, step do
  for queue = 1, queues do
    if not holding[queue] and take(queue, index, tonumber(ask(queue, 2)), tonumber(ask(queue, 3))) then
      return fill(queue, first, last, step, index)
    end
  end
end

if standing ~= '' then redis.call('ZADD', leases, moment() + lasts + 0.5, standing) end
return {0, held, standing ~= '' and 1 or 0}
"""

# KEYS: leases. ARGV: milliseconds, members. Returns the members that are lost.
RENEW = """
local at = redis.call('TIME')
local lapses, lost = at[1] * 1000 + math.floor(at[2] / 1000) + tonumber(ARGV[1]), {}
redis.call('PERSIST', KEYS[1])
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], lapses, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
"""

# Drop dead letters that are too old or too many, the oldest first, `most` of them at a time.
BOUND_FUNCTION = """
local function bound(dead, messages, died, dropped, now, kept, seconds, most)
  local ids = redis.call('ZRANGEBYSCORE', died, '-inf', now - 1000 * seconds, 'LIMIT', 0, most)
  local over = math.min(most, redis.call('ZCARD', died) - kept)
  if over > #ids then ids = redis.call('ZRANGE', died, 0, over - 1) end
  for _, id in ipairs(ids) do
    redis.call('HDEL', dead, id)
    redis.call('HDEL', messages, id)
    redis.call('ZREM', died, id)
  end
  if #ids > 0 then redis.call('INCRBY', dropped, #ids) end
  return #ids
end
"""

# KEYS: leases, lease; result key and record of each outcome; then, only where there are dead letters or delayed
# frames: delayed, dead, dead messages, died, dropped.
# ARGV: member, seconds outcomes are kept, number of outcomes, of inboxes, of letters, letters kept at the most and
# for how many seconds; the outcomes as stored; the channels of the inboxes; for each outcome which inbox (from 1;
# 0 is none); for each letter its outcome (from 1; 0 is none), id, line and message; then milliseconds from now
# and frame of each delayed job.
# Returns nil when the lease is lost, else 1 or 0 for each outcome: whether it was published; and last, how many
# letters were dropped to make room.
PUBLISH = (
    PUBLISH_FUNCTION
    + BOUND_FUNCTION
    + """
local outcomes, inboxes, letters = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local channels = 7 + outcomes
local letter = channels + inboxes + outcomes
local delayed = letter + 4 * letters
local more = 2 + 2 * outcomes
local replies, ours = {}, false
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  -- Asked again, as the first reply was lost on its way? Then what is stored is, to the byte, what we bring.
  for i = 1, outcomes do
    replies[i] = redis.pcall('GET', KEYS[1 + 2 * i]) == ARGV[7 + i] and 1 or 0
    ours = ours or replies[i] == 1
  end
  for i = letter + 1, delayed, 4 do
    ours = ours or redis.pcall('HGET', KEYS[more + 2], ARGV[i + 1]) == ARGV[i + 2]
  end
  for i = delayed + 1, #ARGV, 2 do
    ours = ours or type(redis.pcall('ZSCORE', KEYS[more + 1], ARGV[i + 1])) == 'string'
  end
  replies[outcomes + 1] = 0
  return ours and replies
end
redis.call('PERSIST', KEYS[1])
for i = 1, outcomes do
  replies[i] = publish(KEYS[1 + 2 * i], KEYS[2 + 2 * i], ARGV[2], ARGV[7 + i])
end
for inbox = 1, inboxes do  -- a client that waits for many jobs hears of them together
  local told = {}
  for i = 1, outcomes do
    if replies[i] == 1 and tonumber(ARGV[channels + inboxes + i]) == inbox then told[#told + 1] = ARGV[7 + i] end
  end
  redis.call('PUBLISH', ARGV[channels + inbox], table.concat(told, '\\n'))
end
replies[outcomes + 1] = 0
if #KEYS > more then
  local at = redis.call('TIME')
  local now = at[1] * 1000 + math.floor(at[2] / 1000)
  local queue, dead, messages, died = KEYS[more + 1], KEYS[more + 2], KEYS[more + 3], KEYS[more + 4]
  for i = letter + 1, delayed, 4 do
    -- Not for a job that ended otherwise before. By what is stored: an error may have ended a first try half way.
    local of, id = tonumber(ARGV[i]), ARGV[i + 1]
    if of == 0 or redis.call('GET', KEYS[1 + 2 * of]) == ARGV[7 + of] then
      redis.call('HSET', messages, id, ARGV[i + 3])
      redis.call('HSET', dead, id, ARGV[i + 2])
      redis.call('ZADD', died, now, id)
    end
  end
  if letters > 0 then
    replies[outcomes + 1] = bound(dead, messages, died, KEYS[more + 5], now, tonumber(ARGV[6]), tonumber(ARGV[7]),
                                  letters + 100)
  end
  for i = delayed + 1, #ARGV, 2 do redis.call('ZADD', queue, now + tonumber(ARGV[i]), ARGV[i + 1]) end
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return replies
"""
)

# KEYS: died, dead, dead messages, dropped. ARGV: letters kept at the most, for how many seconds, and how many to
# drop at the most. Returns how many were dropped.
BOUND = (
    BOUND_FUNCTION
    + """
local at = redis.call('TIME')
local now = at[1] * 1000 + math.floor(at[2] / 1000)
redis.call('PERSIST', KEYS[1])
return bound(KEYS[2], KEYS[3], KEYS[1], KEYS[4], now, tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
"""
)

# KEYS: leases, lease. ARGV: member. Returns 1 if the lease was held.
FINISH = """
redis.call('DEL', KEYS[2])
return redis.call('ZREM', KEYS[1], ARGV[1])
"""

# A lease nobody holds is left alone; so is one that has not lapsed, if only a lapsed one may be ended.
# Returns the moment, in milliseconds.
ENDING = """
local function ending(leases, member, only_if_lapsed)
  local score = redis.call('ZSCORE', leases, member)
  if not score then return false end
  local at = redis.call('TIME')
  if only_if_lapsed and tonumber(score) > at[1] * 1000 + math.floor(at[2] / 1000) then return false end
  redis.call('PERSIST', leases)
  return at[1] .. string.format('%03d', math.floor(at[2] / 1000))
end
"""

# KEYS: leases, lease, the five sources. ARGV: member, '1' if only when lapsed, '1' to put them behind what waits,
# the frame to put in place of the first one leased, or ''; then source and count of each origin. Returns how many
# went back.
RELEASE = (
    ENDING
    + """
if not ending(KEYS[1], ARGV[1], ARGV[2] == '1') then return 0 end
local frames, at = redis.call('LRANGE', KEYS[2], 0, -1), 0
local push = ARGV[3] == '1' and 'LPUSH' or 'RPUSH'
if ARGV[4] ~= '' then frames[1] = ARGV[4] end
for i = 5, #ARGV, 2 do
  local count = tonumber(ARGV[i + 1])
  for frame = math.min(at + count, #frames), at + 1, -1 do
    redis.call(push, KEYS[3 + ARGV[i]], frames[frame])
  end
  at = at + count
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return #frames
"""
)

# KEYS: leases, lease, again. ARGV: member, '1' if only when lapsed, cause and owner of the attempt.
# Returns the number of frames that went back. See `headrace.wire.attempts`.
# A lease that stood and is empty may yet be filled, where Redis was held up and has not ended the wait of its
# owner: it goes when found lapsed once more, ten seconds on. Until then, it has a quarter of one in its score.
LAPSE = (
    ENDING
    + """
local moment = ending(KEYS[1], ARGV[1], ARGV[2] == '1')
if not moment then return 0 end
local frames = redis.call('LRANGE', KEYS[2], 0, -1)
local score = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
if #frames == 0 and score % 1 == 0.5 then
  redis.call('ZADD', KEYS[1], tonumber(moment) + 10000.25, ARGV[1])
  return 0
end
local attempt = ARGV[3] .. ',' .. moment .. ',' .. #frames .. ';'
for i = #frames, 1, -1 do
  local tried, message
  if string.byte(frames[i]) == 1 then tried, message = string.match(frames[i], '^\\1([^\\n]+;)\\n(.*)$') end
  if not tried or string.gsub(tried, '[^,;]+,[^,;]*,%d+,%d+;', '') ~= '' then tried, message = '', frames[i] end
  redis.call('RPUSH', KEYS[3], '\\1' .. tried .. attempt .. '\\n' .. message)
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return #frames
"""
)

# KEYS: leases. ARGV: how many at the most. Returns members whose time is over.
LAPSED = """
local at = redis.call('TIME')
local now = at[1] * 1000 + math.floor(at[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
"""

# KEYS: delayed, the five sources of the queue. ARGV: how many at the most. Returns how many were due.
# What was ever lost with its process runs alone. The others go to the list of their priority: the first
# `"priority":` of the message, as the body is base64.
DUE = """
local at = redis.call('TIME')
local now = at[1] * 1000 + math.floor(at[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
redis.call('PERSIST', KEYS[1])
for _, frame in ipairs(due) do
  local tried = ''
  if string.byte(frame) == 1 then tried = ';' .. (string.match(frame, '^\\1([^\\n]*)\\n') or '') end
  local lost = string.find(tried, ';crash,') or string.find(tried, ';lease_expired,')
  if lost or string.find(tried, ';timeout[@,]') then
    redis.call('LPUSH', KEYS[2], frame)
  else
    local priority = tonumber(string.match(frame, '"priority":%s*(%d+)') or '0')
    redis.call('LPUSH', KEYS[3 + math.min(3, math.floor(priority / 3))], frame)
  end
  redis.call('ZREM', KEYS[1], frame)
end
return #due
"""
