"""The scripts of listeners: claim ended jobs, and record what became of each.

    take ──> ZREM       handled
         │─> postpone   another delivery later
         └─> give up    a dead letter
    sweep               the entries of outcomes that were stored without one

`headrace.wire.listening` describes the entries. A claim replaces an entry by one that is due when the claim ends,
so those of a lost listener are due again by themselves. Every other script removes an entry by its text: a
listener that was held up changes nothing that another has done meanwhile. The cost of each is linear in the size
of its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.connection.commands import Command, Script
from headrace.connection.lua import CHECKED_FUNCTION, NOW_FUNCTION
from headrace.results.letter_scripts import LETTERS_FUNCTIONS, DeadLetterLimits, names_of_letters
from headrace.results.notices import ENCODE_ENTRY_FUNCTION, names_of_notices
from headrace.results.publish import PUBLISH_FUNCTION
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace.wire.listening import Entry

#: A Lua function: return the first entries of a name that are due before a moment, at most `limit`.
_ENTRIES_FUNCTION = """
local function entries_of(due, name, before, limit)
  return checked('ZRANGEBYLEX', due, '[' .. name .. ':', '(' .. name .. ':' .. before, 'LIMIT', 0, limit)
end
"""

#: KEYS: entries. ARGV: name, most entries, milliseconds of the claim. Returns the milliseconds until the next
#: entry is due, -1 if there is none, and the claimed entries. An entry that was delivered before is claimed alone:
#: it may be the one that ends its listeners, and others would count a delivery each time. Text that is no entry is
#: removed.
_TAKE = Script(
    "take_entries",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + ENCODE_ENTRY_FUNCTION
    + _ENTRIES_FUNCTION
    + """
local due, name, limit, claim_ms = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local now, reply = now_ms(), {-1}
local entries = entries_of(due, name, string.format('%013.0f', now + 1), limit)
redis.call('PERSIST', due)
for _, entry in ipairs(entries) do
  local _, last, deliveries = string.find(entry, '^:%d+:(%d+):', #name + 1)
  local is_repeated = last and tonumber(deliveries) > 0
  if not (is_repeated and #reply > 1) then
    redis.call('ZREM', due, entry)
    if last then
      local claimed = encode_entry(name, now + claim_ms, tonumber(deliveries) + 1, string.sub(entry, last + 1))
      redis.call('ZADD', due, 0, claimed)
      reply[#reply + 1] = claimed
    end
    if is_repeated then break end
  end
end
local following = entries_of(due, name, ';', 1)[1]
local due_ms = following and string.match(following, '^:(%d+):', #name + 1)
if due_ms then reply[1] = math.max(0, tonumber(due_ms) - now) end
return reply
""",
    flag="allow-oom",
)


def take_command(keys: Keys, name: str, *, limit: int, claim_ms: int) -> Command:
    """Return the command that claims ended jobs of a name for `claim_ms` milliseconds, at most `limit` of them.

    The reply is the milliseconds until the next one is due, -1 if there is none, and the claimed entries.
    """
    return _TAKE([keys.listen_due], [name, limit, claim_ms])


def finish_command(keys: Keys, stored: bytes) -> Command:
    """Return the command that ends an entry. The reply is 1 unless its claim ended before."""
    return Command(("ZREM", keys.listen_due, stored))


#: KEYS: entries. ARGV: name; then the entry as it was claimed, the milliseconds until it is due, its deliveries,
#: and its model and job, of each. Returns the number of entries whose claim had not ended.
_POSTPONE = Script(
    "postpone_entries",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + ENCODE_ENTRY_FUNCTION
    + """
local due, name, now, postponed = KEYS[1], ARGV[1], now_ms(), 0
checked('ZCARD', due)
redis.call('PERSIST', due)
for i = 2, #ARGV, 4 do
  if redis.call('ZREM', due, ARGV[i]) == 1 then
    redis.call('ZADD', due, 0, encode_entry(name, now + tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]))
    postponed = postponed + 1
  end
end
return postponed
""",
    flag="allow-oom",
)


def postpone_command(keys: Keys, name: str, entries: Sequence[tuple[Entry, int, int]]) -> Command:
    """Return the command that lets claimed entries of a name be claimed again.

    Each is given with the milliseconds until then, and with the deliveries to store.
    """
    arguments: list[str | bytes | int] = [name]
    for entry, delay_ms, deliveries in entries:
        arguments += (entry.encode(), delay_ms, deliveries, f"{entry.model}:{entry.job}")
    return _POSTPONE([keys.listen_due], arguments)


#: KEYS: entries, those of dead letters, the share. ARGV: the entry as it was claimed, id, line and message of the
#: letter, most letters, seconds each is kept. Returns 1 unless its claim ended before.
_GIVE_UP = Script(
    "give_up_entry",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + LETTERS_FUNCTIONS
    + """
local due, letters, share = KEYS[1], letter_keys(2), KEYS[6]
local claimed, letter_id, line, message = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
check_letters(letters, {share})
if not checked('ZSCORE', due, claimed) then return 0 end
redis.call('PERSIST', due)
local now = now_ms()
store_letter(letters, share, now, letter_id, line, message, false)
redis.call('ZREM', due, claimed)
trim_letters(letters, share, now, tonumber(ARGV[5]), tonumber(ARGV[6]), 100)
return 1
""",
    flag="allow-oom",
)


def give_up_command(keys: Keys, entry: Entry, letter: DeadLetter, *, limits: DeadLetterLimits) -> Command:
    """Return the command that turns an entry into a dead letter. The reply is 1 unless its claim ended before."""
    names = [keys.listen_due, *names_of_letters(keys), keys.dead_share(letter.queue, malformed=False)]
    stored = entry.encode()
    return _GIVE_UP(names, [stored, letter.id, letter.encode(), stored, limits.max_count, limits.max_age_seconds])


#: KEYS: those of notices, then result key and record of each job. Returns the numbers of stored entries, and of
#: jobs that are under way no more and have no listeners: their record has expired.
_SWEEP = Script(
    "sweep_entries",
    PUBLISH_FUNCTION
    + """
local keys, stored, removed = notice_keys(1), 0, 0
if not keys then return {0, 0} end
for i = 6, #KEYS, 2 do
  local result_key, record_key = KEYS[i], KEYS[i + 1]
  local has_ended = final[status_of(result_key)]
  if redis.call('ZSCORE', keys.listen_open, job_of(result_key, keys.open)) then
    if has_ended and store_entry(keys, result_key, names_of(record_key), record_key, math.huge) then
      stored = stored + 1
    elseif has_ended or redis.call('EXISTS', record_key) == 0 then
      removed = removed + redis.call('ZREM', keys.listen_open, job_of(result_key, keys.open))
    end
  end
end
return {stored, removed}
""",
    flag="allow-oom",
)


def sweep_command(keys: Keys, jobs: Sequence[str]) -> Command:
    """Return the command that stores the missing entries of these jobs, which are in `Keys.listen_open`.

    The reply is the numbers of stored entries, and of jobs that are under way no more and have no listeners.
    """
    names = [name for job in jobs for name in (keys.result(job), keys.job(job))]
    return _SWEEP([*names_of_notices(keys), *names])
