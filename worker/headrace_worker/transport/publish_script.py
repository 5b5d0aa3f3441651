"""PUBLISH: store and announce the outcomes of a claim, its dead letters and its retries, and end its lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from headrace.connection.commands import Argument, Command, Script
from headrace.results.letter_scripts import LETTERS_FUNCTIONS, DeadLetterLimits, names_of_letters
from headrace.results.notices import names_of_notices
from headrace.results.publish import PUBLISH_FUNCTION
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace_worker.transport.claims import Lease

#: Call it by `publish_command`. The keys of dead letters and delayed jobs are declared only if there are any.
#: Returns nil if the lease was lost; else 1 or 0 for each outcome (whether it was published), and last the number
#: of dead letters that were deleted to make room. The cost is linear in the number and bytes of the arguments.
_BODY = """
local leases, lease = KEYS[1], KEYS[2]
local member, outcome_ttl = ARGV[1], ARGV[2]
local outcome_count, channel_count, letter_count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local max_letters, max_age_seconds = tonumber(ARGV[6]), tonumber(ARGV[7])
local follow_up_count, hold_ms = tonumber(ARGV[8]), tonumber(ARGV[9])
-- The number of the last argument before the outcomes, the reply channels, the channel number of each outcome (0
-- for none), the dead letters (number of its outcome or 0, 1 if malformed, id, line, message), the follow-ups
-- (number of their outcome or 0, follow-ups, follow-ups if the job was cancelled, each '' for none), the seconds
-- that the records of delayed jobs must live, and the delayed jobs (milliseconds from now, message).
local outcomes = 9
local channels = outcomes + outcome_count
local channel_of = channels + channel_count
local letters = channel_of + outcome_count
local follow_ups = letters + 5 * letter_count
local record_seconds = follow_ups + 3 * follow_up_count
-- The number of the last key before the result key and record of each outcome, and before all other keys.
local outcome_keys = 7
local more_keys = outcome_keys + 2 * outcome_count
local delayed, shares = KEYS[more_keys + 1], {KEYS[more_keys + 2], KEYS[more_keys + 3]}
local dead = letter_keys(more_keys + 4)
local follow_ups_key = KEYS[more_keys + 8]
local records = more_keys + 8
local delayed_jobs = record_seconds + math.max(0, #KEYS - records)
local replies = {}
local smallest = math.min(outcome_count, channel_count, letter_count)
if not (smallest >= 0 and more_keys <= #KEYS and delayed_jobs <= #ARGV) then
  error('the counts do not fit the arguments', 0)
end

if not checked('ZSCORE', leases, member) then
  -- A repeated call, as the reply was lost? Then what is stored equals, byte for byte, what this call brings.
  local is_repeated = false
  for i = 1, outcome_count do
    replies[i] = redis.pcall('GET', KEYS[outcome_keys + 2 * i - 1]) == ARGV[outcomes + i] and 1 or 0
    is_repeated = is_repeated or replies[i] == 1
  end
  for i = letters + 1, follow_ups, 5 do
    is_repeated = is_repeated or redis.pcall('HGET', dead.dead, ARGV[i + 2]) == ARGV[i + 3]
  end
  for i = delayed_jobs + 1, #ARGV, 2 do
    is_repeated = is_repeated or type(redis.pcall('ZSCORE', delayed, ARGV[i + 1])) == 'string'
  end
  replies[outcome_count + 1] = 0
  return is_repeated and replies
end

if #KEYS > more_keys then  -- nothing is written before each key is known to have its type
  checked('ZCARD', delayed)
  check_letters(dead, shares)
  checked('ZCARD', follow_ups_key)
end
local notices = notice_keys(3)
redis.call('PERSIST', leases)
local lines = {}  -- by channel: one message for all jobs of a client
for channel = 1, channel_count do lines[channel] = {} end
for i = 1, outcome_count do
  local result_key, record_key = KEYS[outcome_keys + 2 * i - 1], KEYS[outcome_keys + 2 * i]
  replies[i] = publish(result_key, record_key, outcome_ttl, ARGV[outcomes + i], notices)
  local of_channel = lines[tonumber(ARGV[channel_of + i])]
  if of_channel and replies[i] == 1 then of_channel[#of_channel + 1] = ARGV[outcomes + i] end
end
for channel = 1, channel_count do
  redis.call('PUBLISH', ARGV[channels + channel], table.concat(lines[channel], '\\n'))
end
replies[outcome_count + 1] = 0
if #KEYS > more_keys then
  local now = now_ms()
  for i = letters + 1, follow_ups, 5 do
    -- No letter for a job that has another outcome. Compare with what is stored: a first call may have failed
    -- half way.
    local outcome, is_malformed = tonumber(ARGV[i]), ARGV[i + 1] == '1'
    if outcome == 0 or redis.call('GET', KEYS[outcome_keys + 2 * outcome - 1]) == ARGV[outcomes + outcome] then
      store_letter(dead, shares[is_malformed and 2 or 1], now, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], is_malformed)
    end
  end
  if letter_count > 0 then
    for _, share in ipairs(shares) do
      replies[outcome_count + 1] = replies[outcome_count + 1]
        + trim_letters(dead, share, now, max_letters, max_age_seconds, letter_count + 100)
    end
  end
  for i = follow_ups + 1, record_seconds, 3 do
    local outcome, member, member_if_cancelled = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
    if outcome > 0 and redis.call('GET', KEYS[outcome_keys + 2 * outcome - 1]) ~= ARGV[outcomes + outcome] then
      local is_cancelled = status_of(KEYS[outcome_keys + 2 * outcome - 1]) == 'REVOKED'
      member = is_cancelled and member_if_cancelled or ''
    end
    if member ~= '' then redis.call('ZADD', follow_ups_key, now + hold_ms, member) end
  end
  for i = delayed_jobs + 1, #ARGV, 2 do redis.call('ZADD', delayed, now + tonumber(ARGV[i]), ARGV[i + 1]) end
  for i = 1, #KEYS - records do  -- a record is never shortened; Redis 6.2 has no GT
    local key, seconds = KEYS[records + i], ARGV[record_seconds + i]
    local reply = redis.pcall('EXPIRE', key, seconds, 'GT')
    if type(reply) == 'table' and reply.err then redis.call('EXPIRE', key, seconds) end
  end
end
"""
_END = """
redis.call('ZREM', leases, member)
redis.call('DEL', lease)
return replies
"""


def make_source(begin: str, update: str) -> str:
    """Return the source of PUBLISH with more at its beginning, and behind the outcomes, before the lease ends."""
    return PUBLISH_FUNCTION + LETTERS_FUNCTIONS + begin + _BODY + update + _END


PUBLISH = Script("publish_claim", make_source("", ""), flag="allow-oom")


class StoredFollowUps(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks that follow the outcome of a job, to be stored with the outcome."""

    job: str
    #: Stored if the outcome of this call is the job's. None: nothing follows it.
    encoded: bytes | None = None
    #: Stored if the job turns out to be cancelled already.
    if_cancelled: bytes | None = None


def publish_command(
    keys: Keys,
    lease: Lease,
    outcomes: Mapping[str, bytes],
    *,
    ttl: int,
    clients: Mapping[str, str],
    dead_letters: Sequence[tuple[DeadLetter, bytes]],
    delayed: Sequence[tuple[int, bytes]],
    record_seconds: Mapping[str, int],
    limits: DeadLetterLimits,
    follow_ups: Sequence[StoredFollowUps] = (),
    hold_ms: int = 0,
) -> Command:
    """Return the command that ends a claim; `Leases.publish` describes the arguments."""
    names = [keys.leases, keys.lease(lease.name), *names_of_notices(keys)]
    for job in outcomes:
        names += [keys.result(job), keys.job(job)]
    channels = {client: number for number, client in enumerate(dict.fromkeys(clients.values()), start=1)}
    arguments: list[Argument] = [lease.member, ttl, len(outcomes), len(channels), len(dead_letters)]
    arguments += [limits.max_count, limits.max_age_seconds, len(follow_ups), hold_ms]
    arguments += [*outcomes.values(), *map(keys.reply_channel, channels)]
    arguments += [channels[clients[job]] if job in clients else 0 for job in outcomes]
    if dead_letters or delayed or follow_ups:
        shares = [keys.dead_share(lease.queue, malformed=malformed) for malformed in (False, True)]
        names += [keys.delayed(lease.queue), *shares, *names_of_letters(keys), keys.follow_ups]
        names += map(keys.job, record_seconds)
        numbers = {job: number for number, job in enumerate(outcomes, start=1)}
        for letter, message in dead_letters:
            outcome = 0 if letter.is_malformed else numbers[letter.id]
            arguments += [outcome, int(letter.is_malformed), letter.id, letter.encode(), message]
        for stored in follow_ups:
            arguments += [numbers.get(stored.job, 0), stored.encoded or b"", stored.if_cancelled or b""]
        arguments += record_seconds.values()
        for milliseconds, queued_message in delayed:
            arguments += [milliseconds, queued_message]
    return PUBLISH(names, arguments)
