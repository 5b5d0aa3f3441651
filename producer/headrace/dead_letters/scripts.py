"""The Lua scripts of dead letters, each with a function that builds its command.

One call handles at most LETTERS_PER_CALL letters, so that it blocks Redis for about a millisecond. The cost of
each script is linear in the number of its letters and in the bytes it reads of them, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from headrace.connection.commands import Argument, Command, Script
from headrace.connection.lua import CHECKED_FUNCTION, NOW_FUNCTION
from headrace.dead_letters.replay import PreparedEntry, PreparedNotice, PreparedReplay
from headrace.results.notices import ENCODE_ENTRY_FUNCTION, NOTICES_FUNCTIONS
from headrace.results.publish import STATUS_FUNCTION
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace.wire.listening import LISTEN_QUEUE
from headrace.wire.notice import NOTICE_QUEUE

#: Letters that one call of a script reads, replays or purges.
LETTERS_PER_CALL = 200
#: Ids that one call of `page_command` returns, unless more letters died in the same millisecond.
_IDS_PER_PAGE = 1000
#: Bytes of messages after which `letters_with_messages_command` reads no further letter.
_MESSAGE_BYTES = 1024 * 1024


class LetterResult(IntEnum):
    """The result of replaying or purging one letter."""

    #: It was replayed, purged or replaced by a newer letter before this call.
    ALREADY_HANDLED = 0
    DONE = 1
    #: Its id has another outcome than this failure, or belongs to another job under way.
    ID_IN_USE = 2
    #: Its bytes are not a job: no worker could run them.
    MALFORMED = 3


# KEYS: dead times. ARGV: lowest score, `(` before it to exclude it; highest score; ids per page.
# Returns the last score of the page ('' on the last page) and its ids. All ids of one score are on one page.
_PAGE = Script(
    "page_dead_letters",
    """
local dead_times = KEYS[1]
local lowest, highest, ids_per_page = ARGV[1], ARGV[2], tonumber(ARGV[3])
local scored = redis.call('ZRANGEBYSCORE', dead_times, lowest, highest, 'WITHSCORES', 'LIMIT', 0, ids_per_page)
local is_full = #scored >= 2 * ids_per_page
local last, ids = is_full and scored[#scored] or '', {}
for i = 1, #scored, 2 do
  if scored[i + 1] ~= last then ids[#ids + 1] = scored[i] end
end
if is_full then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', dead_times, last, last)) do ids[#ids + 1] = id end
end
return {last, ids}
""",
    flag="no-writes",
)


def page_command(keys: Keys, lowest: str, highest_ms: int) -> Command:
    """Return the command that reads the ids of letters that died in a range of time.

    `lowest` is a unix time in milliseconds, with `(` in front to exclude it. The reply is the last moment of the
    page, b"" on the last page, and a list of ids.
    """
    return _PAGE([keys.dead_times], [lowest, highest_ms, _IDS_PER_PAGE])


# KEYS: dead times, dead. ARGV: ids. Returns for each id the moment the letter died and its line.
_LETTERS = Script(
    "read_dead_letters",
    """
local dead_times, dead = KEYS[1], KEYS[2]
local letters = {}
for i, id in ipairs(ARGV) do
  letters[i] = {redis.call('ZSCORE', dead_times, id), redis.call('HGET', dead, id)}
end
return letters
""",
    flag="no-writes",
)


def letters_command(keys: Keys, ids: Sequence[bytes | str]) -> Command:
    """Return the command that reads letters without their messages.

    The reply is a list: for each id, the moment the letter died and its line, both None where there is no letter.
    """
    return _LETTERS([keys.dead_times, keys.dead], ids)


# KEYS: dead times, dead, dead messages. ARGV: bytes of messages; ids.
# Returns the server's unix milliseconds, then moment, line and message of the letters read: one at least.
_LETTERS_WITH_MESSAGES = Script(
    "read_dead_messages",
    """
local dead_times, dead, dead_messages = KEYS[1], KEYS[2], KEYS[3]
local max_bytes = tonumber(ARGV[1])
local time, reply, bytes = redis.call('TIME'), {}, 0
reply[1] = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
for i = 2, #ARGV do
  if bytes > max_bytes then break end
  local id = ARGV[i]
  local message = redis.call('HGET', dead_messages, id)
  reply[i] = {redis.call('ZSCORE', dead_times, id), redis.call('HGET', dead, id), message}
  bytes = bytes + (message and #message or 0)
end
return reply
""",
    flag="no-writes",
)


def letters_with_messages_command(keys: Keys, ids: Sequence[bytes | str]) -> Command:
    """Return the command that reads letters with their messages.

    The reply is the server's unix milliseconds, then moment, line and message of the first letters, at least one
    and as many as fit in _MESSAGE_BYTES; all three are None where there is no letter.
    """
    return _LETTERS_WITH_MESSAGES([keys.dead_times, keys.dead, keys.dead_messages], [_MESSAGE_BYTES, *ids])


_COUNT = Script(
    "count_dead_letters", "return {redis.call('ZCARD', KEYS[1]), redis.call('GET', KEYS[2])}", flag="no-writes"
)


def count_command(keys: Keys) -> Command:
    """Return the command that counts letters. The reply is their number, and that of dropped letters or None."""
    return _COUNT([keys.dead_times, keys.dead_dropped])


#: A Lua function: remove a letter, and the letter's member of its share.
_REMOVE_FUNCTION = """
local function remove_letter(dead, dead_messages, dead_times, share, id)
  redis.call('HDEL', dead, id)
  redis.call('HDEL', dead_messages, id)
  redis.call('ZREM', dead_times, id)
  redis.call('ZREM', share, id)
end
"""

# KEYS: dead times, dead, dead messages; then the share of each letter. ARGV: id and moment of each letter.
# Returns a LetterResult for each.
_PURGE = Script(
    "purge_dead_letters",
    CHECKED_FUNCTION
    + _REMOVE_FUNCTION
    + """
local dead_times, dead, dead_messages = KEYS[1], KEYS[2], KEYS[3]
local ALREADY_HANDLED, DONE = 0, 1
checked('ZCARD', dead_times)
checked('HLEN', dead)
checked('HLEN', dead_messages)
for i = 4, #KEYS do checked('ZCARD', KEYS[i]) end
local results = {}
for i = 1, #ARGV, 2 do
  local id, died_ms = ARGV[i], tonumber(ARGV[i + 1])
  local score = redis.call('ZSCORE', dead_times, id)
  if score and tonumber(score) == died_ms then
    remove_letter(dead, dead_messages, dead_times, KEYS[4 + (i - 1) / 2], id)
    results[#results + 1] = DONE
  else
    results[#results + 1] = ALREADY_HANDLED
  end
end
return results
""",
    flag="allow-oom",
)


def purge_command(keys: Keys, letters: Sequence[DeadLetter]) -> Command:
    """Return the command that removes letters. The reply is a list with a LetterResult for each letter."""
    names = [keys.dead_times, keys.dead, keys.dead_messages]
    arguments: list[Argument] = []
    for letter in letters:
        names.append(keys.dead_share(letter.queue, malformed=letter.is_malformed))
        arguments += (letter.id, letter.died_ms)
    return _PURGE(names, arguments)


# KEYS: dead times, dead, dead messages, open notices, jobs with listeners under way; then result key, record,
# target list and share of each letter. ARGV: seconds to store a record; then id, moment, queued message and record
# (or '') of each letter. Returns a LetterResult for each. The message is pushed before the letter is removed: an
# error between the two leaves the letter. `PERSIST` changes nothing: a full Redis refuses a script whose first
# write needs memory.
_REPLAY = Script(
    "replay_dead_letters",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + STATUS_FUNCTION
    + NOTICES_FUNCTIONS
    + _REMOVE_FUNCTION
    + """
local dead_times, dead, dead_messages, record_ttl = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local ALREADY_HANDLED, DONE, ID_IN_USE = 0, 1, 2
checked('ZCARD', dead_times)
checked('HLEN', dead)
checked('HLEN', dead_messages)
local open = KEYS[4]
local listen_open = KEYS[5]
checked('ZCARD', open)
checked('ZCARD', listen_open)
for i = 6, #KEYS, 4 do
  checked('LLEN', KEYS[i + 2])
  checked('ZCARD', KEYS[i + 3])
end
redis.call('PERSIST', dead_times)
local results = {}
for i = 1, (#KEYS - 5) / 4 do
  local result_key, record_key, target_list, share = unpack(KEYS, 4 * i + 2, 4 * i + 5)
  local id, died_ms, message, record = ARGV[4 * i - 2], tonumber(ARGV[4 * i - 1]), ARGV[4 * i], ARGV[4 * i + 1]
  local score = redis.call('ZSCORE', dead_times, id)
  if not score or tonumber(score) ~= died_ms or redis.call('HEXISTS', dead_messages, id) == 0 then
    results[i] = ALREADY_HANDLED
  elseif status_of(result_key) ~= 'FAILURE' and redis.call('EXISTS', result_key, record_key) > 0 then
    results[i] = ID_IN_USE
  else
    redis.call('LPUSH', target_list, message)
    redis.call('DEL', result_key)
    if redis.call('EXPIRE', record_key, record_ttl) == 0 and record ~= '' then
      redis.call('SET', record_key, record, 'EX', record_ttl)
    end
    open_notice(open, listen_open, result_key, record_key)
    remove_letter(dead, dead_messages, dead_times, share, id)
    results[i] = DONE
  end
end
return results
""",
    flag="allow-oom",
)


def replay_command(keys: Keys, replays: Sequence[PreparedReplay], *, record_ttl: int) -> Command:
    """Return the command that moves letters back to their queues, each whole or not at all.

    `record_ttl` is the seconds a job's record is stored. The reply is a list with a LetterResult for each letter.
    """
    names = [keys.dead_times, keys.dead, keys.dead_messages, keys.notices_open, keys.listen_open]
    arguments: list[Argument] = [record_ttl]
    for replay in replays:
        letter = replay.letter
        names += [keys.result(letter.job), keys.job(letter.job), keys.sources(letter.queue)[replay.source]]
        names.append(keys.dead_share(letter.queue, malformed=letter.is_malformed))
        arguments += (letter.id, letter.died_ms, replay.queued_message, replay.record)
    return _REPLAY(names, arguments)


def _redelivery_source(check: str, deliver: str) -> str:
    """Return the source of a script that lets what letters of one share hold be delivered again.

    KEYS: dead times, dead, dead messages, the share of the letters, then those of the deliveries, which `check`
    KEYS: dead times, dead, dead messages, the share of the letters, then those of the deliveries, which `check`
    looks at. ARGV: id and moment of each letter, and two texts for `deliver`. Returns a LetterResult for each.
    Each letter is delivered whole or not at all.
    """
    return (
        CHECKED_FUNCTION
        + NOW_FUNCTION
        + _REMOVE_FUNCTION
        + ENCODE_ENTRY_FUNCTION
        + f"""
local dead_times, dead, dead_messages, share = unpack(KEYS)
local ALREADY_HANDLED, DONE = 0, 1
checked('ZCARD', dead_times)
checked('HLEN', dead)
checked('HLEN', dead_messages)
checked('ZCARD', share)
{check}
redis.call('PERSIST', dead_times)
local results = {{}}
for i = 1, #ARGV, 4 do
  local id, died_ms, first, second = unpack(ARGV, i, i + 3)
  local score = redis.call('ZSCORE', dead_times, id)
  if score and tonumber(score) == tonumber(died_ms) then
    {deliver}
    remove_letter(dead, dead_messages, dead_times, share, id)
    results[#results + 1] = DONE
  else
    results[#results + 1] = ALREADY_HANDLED
  end
end
return results
"""
    )


#: KEYS of the deliveries: notices, notices due. The texts of a letter: id of the notice, notice.
_REPLAY_NOTICES = Script(
    "replay_notices",
    _redelivery_source(
        check="checked('HLEN', KEYS[5]) checked('ZCARD', KEYS[6])",
        deliver="redis.call('HSET', KEYS[5], first, second) redis.call('ZADD', KEYS[6], now_ms(), first)",
    ),
    flag="allow-oom",
)


def replay_notices_command(keys: Keys, replays: Sequence[PreparedNotice]) -> Command:
    """Return the command that makes dead letters notices again, due at once, each whole or not at all.

    The reply is a list with a LetterResult for each letter.
    """
    share = keys.dead_share(NOTICE_QUEUE, malformed=False)
    names = [keys.dead_times, keys.dead, keys.dead_messages, share, keys.notices, keys.notices_due]
    arguments: list[Argument] = []
    for replay in replays:
        arguments += (replay.letter.id, replay.letter.died_ms, replay.notice, replay.stored)
    return _REPLAY_NOTICES(names, arguments)


#: KEYS of the deliveries: entries of listeners. The texts of a letter: name, and model and job.
_REPLAY_ENTRIES = Script(
    "replay_entries",
    _redelivery_source(
        check="checked('ZCARD', KEYS[5])",
        deliver="redis.call('ZADD', KEYS[5], 0, encode_entry(first, now_ms(), 0, second))",
    ),
    flag="allow-oom",
)


def replay_entries_command(keys: Keys, replays: Sequence[PreparedEntry]) -> Command:
    """Return the command that makes dead letters entries again, due at once, each whole or not at all.

    The reply is a list with a LetterResult for each letter.
    """
    share = keys.dead_share(LISTEN_QUEUE, malformed=False)
    names = [keys.dead_times, keys.dead, keys.dead_messages, share, keys.listen_due]
    arguments: list[Argument] = []
    for replay in replays:
        letter, entry = replay.letter, replay.entry
        arguments += (letter.id, letter.died_ms, entry.name, f"{entry.model}:{entry.job}")
    return _REPLAY_ENTRIES(names, arguments)
