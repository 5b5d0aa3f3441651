"""PUBLISH: store and announce the outcomes of a claim, its dead letters and its retries, and end its lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from headrace.connection.commands import Argument, Command, Script
from headrace.results.publish import PUBLISH_FUNCTION
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace_worker.transport.claims import Lease
from headrace_worker.transport.lua import NOW_FUNCTION, TRIM_FUNCTION

#: Call it by `publish_command`. The keys of dead letters and delayed jobs are declared only if there are any.
#: Returns nil if the lease was lost; else 1 or 0 for each outcome (whether it was published), and last the number
#: of dead letters that were deleted to make room.
SCRIPT = (
    PUBLISH_FUNCTION
    + TRIM_FUNCTION
    + NOW_FUNCTION
    + """
local leases, lease = KEYS[1], KEYS[2]
local member, outcome_ttl = ARGV[1], ARGV[2]
local outcome_count, channel_count, letter_count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local max_letters, max_age_seconds = tonumber(ARGV[6]), tonumber(ARGV[7])
-- The number of the last argument before the outcomes, the reply channels, the channel number of each outcome (0
-- for none), the dead letters (number of its outcome or 0, id, line, message), and the delayed jobs (milliseconds
-- from now, message).
local outcomes = 7
local channels = outcomes + outcome_count
local channel_of = channels + channel_count
local letters = channel_of + outcome_count
local delayed_jobs = letters + 4 * letter_count
-- The number of the last key before the result key and record of each outcome, and before all other keys.
local outcome_keys = 2
local more_keys = outcome_keys + 2 * outcome_count
local delayed, dead, dead_messages = KEYS[more_keys + 1], KEYS[more_keys + 2], KEYS[more_keys + 3]
local dead_times, dead_dropped = KEYS[more_keys + 4], KEYS[more_keys + 5]
local replies = {}

if not redis.call('ZSCORE', leases, member) then
  -- A repeated call, as the reply was lost? Then what is stored equals, byte for byte, what this call brings.
  local is_repeated = false
  for i = 1, outcome_count do
    replies[i] = redis.pcall('GET', KEYS[outcome_keys + 2 * i - 1]) == ARGV[outcomes + i] and 1 or 0
    is_repeated = is_repeated or replies[i] == 1
  end
  for i = letters + 1, delayed_jobs, 4 do
    is_repeated = is_repeated or redis.pcall('HGET', dead, ARGV[i + 1]) == ARGV[i + 2]
  end
  for i = delayed_jobs + 1, #ARGV, 2 do
    is_repeated = is_repeated or type(redis.pcall('ZSCORE', delayed, ARGV[i + 1])) == 'string'
  end
  replies[outcome_count + 1] = 0
  return is_repeated and replies
end

redis.call('PERSIST', leases)
for i = 1, outcome_count do
  local result_key, record_key = KEYS[outcome_keys + 2 * i - 1], KEYS[outcome_keys + 2 * i]
  replies[i] = publish(result_key, record_key, outcome_ttl, ARGV[outcomes + i])
end
for channel = 1, channel_count do  -- one message for all jobs of a client
  local lines = {}
  for i = 1, outcome_count do
    local is_for_channel = tonumber(ARGV[channel_of + i]) == channel
    if is_for_channel and replies[i] == 1 then lines[#lines + 1] = ARGV[outcomes + i] end
  end
  redis.call('PUBLISH', ARGV[channels + channel], table.concat(lines, '\\n'))
end
replies[outcome_count + 1] = 0
if #KEYS > more_keys then
  local now = now_ms()
  for i = letters + 1, delayed_jobs, 4 do
    -- No letter for a job that has another outcome. Compare with what is stored: a first call may have failed
    -- half way.
    local outcome, id, line, message = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    if outcome == 0 or redis.call('GET', KEYS[outcome_keys + 2 * outcome - 1]) == ARGV[outcomes + outcome] then
      redis.call('HSET', dead_messages, id, message)
      redis.call('HSET', dead, id, line)
      redis.call('ZADD', dead_times, now, id)
    end
  end
  if letter_count > 0 then
    replies[outcome_count + 1] = trim_dead_letters(
      dead, dead_messages, dead_times, dead_dropped, now, max_letters, max_age_seconds, letter_count + 100)
  end
  for i = delayed_jobs + 1, #ARGV, 2 do redis.call('ZADD', delayed, now + tonumber(ARGV[i]), ARGV[i + 1]) end
end
redis.call('ZREM', leases, member)
redis.call('DEL', lease)
return replies
"""
)
_PUBLISH = Script("publish_claim", SCRIPT, flag="allow-oom")

_TRIM = Script(
    "trim_dead_letters",
    TRIM_FUNCTION
    + NOW_FUNCTION
    + """
local dead, dead_messages, dead_times, dead_dropped = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local max_count, max_age_seconds, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('PERSIST', dead_times)
return trim_dead_letters(
  dead, dead_messages, dead_times, dead_dropped, now_ms(), max_count, max_age_seconds, limit)
""",
    flag="allow-oom",
)


class DeadLetterLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The most dead letters that are kept, and for how many seconds."""

    max_count: int = 100_000
    max_age_seconds: int = 30 * 86_400


def publish_command(
    keys: Keys,
    lease: Lease,
    outcomes: Mapping[str, bytes],
    *,
    ttl: int,
    clients: Mapping[str, str],
    dead_letters: Sequence[tuple[DeadLetter, bytes]],
    delayed: Sequence[tuple[int, bytes]],
    limits: DeadLetterLimits,
) -> Command:
    """Return the command that ends a claim; `Leases.publish` describes the arguments."""
    names = [keys.leases, keys.lease(lease.name)]
    for job in outcomes:
        names += [keys.result(job), keys.job(job)]
    channels = {client: number for number, client in enumerate(dict.fromkeys(clients.values()), start=1)}
    arguments: list[Argument] = [lease.member, ttl, len(outcomes), len(channels), len(dead_letters)]
    arguments += [limits.max_count, limits.max_age_seconds]
    arguments += [*outcomes.values(), *map(keys.reply_channel, channels)]
    arguments += [channels[clients[job]] if job in clients else 0 for job in outcomes]
    if dead_letters or delayed:
        names += [keys.delayed(lease.queue), keys.dead, keys.dead_messages, keys.dead_times, keys.dead_dropped]
        numbers = {job: number for number, job in enumerate(outcomes, start=1)}
        for letter, message in dead_letters:
            outcome = 0 if letter.reason == "malformed" else numbers[letter.id]
            arguments += [outcome, letter.id, letter.encode(), message]
        for milliseconds, queued_message in delayed:
            arguments += [milliseconds, queued_message]
    return _PUBLISH(names, arguments)


def trim_command(keys: Keys, *, limits: DeadLetterLimits, limit: int) -> Command:
    """Return the command that deletes dead letters beyond the limits, at most `limit` of them.

    The reply is their number.
    """
    names = [keys.dead, keys.dead_messages, keys.dead_times, keys.dead_dropped]
    return _TRIM(names, [limits.max_count, limits.max_age_seconds, limit])
