"""The scripts for what follows outcomes: take what a lost worker left, send it, postpone it, drop it.

PUBLISH stores the follow-ups of a job with its outcome (`publish_script`), as a member of `Keys.follow_ups` with
the moment from which any worker may send them. SEND writes everything in one step and removes the member, so that
nothing is sent twice. The cost of each script is linear in the size of its arguments.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import redis
from celery.backends.redis import CHORD_CLAIM_EXTEND_LUA, CHORD_CLEANUP_LUA, CHORD_PART_RETURN_LUA

from headrace.connection.commands import Argument, Command, Script, execute
from headrace.connection.lua import CHECKED_FUNCTION, NOW_FUNCTION
from headrace.results.publish import PUBLISH_FUNCTION
from headrace.wire.keys import Keys

#: Follow-ups of jobs that one worker takes at a time.
_TAKE_LIMIT = 100


class Writes(msgspec.Struct, frozen=True, kw_only=True):
    """The writes for the follow-ups of a job."""

    job: str
    #: Pairs of the key of a list, and a message.
    messages: list[tuple[str, str]] = []
    #: Triples of a key, a text and the seconds for which it is kept, 0 for ever; and the keys to delete before.
    values: list[tuple[str, str, int]] = []
    deleted: list[str] = []
    #: Pairs of the id of a task that can no longer run, and the failure to store for it.
    failures: list[tuple[str, str]] = []
    #: Ids of tasks whose stored failure is this job's, to be deleted: the job was replayed, and they will run.
    revived: list[str] = []


_TAKE = Script(
    "take_follow_ups",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + """
local follow_ups = KEYS[1]
local limit, hold_ms = ARGV[1], tonumber(ARGV[2])
local now = now_ms()
local due = checked('ZRANGEBYSCORE', follow_ups, '-inf', now, 'LIMIT', 0, limit)
redis.call('PERSIST', follow_ups)
for _, member in ipairs(due) do redis.call('ZADD', follow_ups, now + hold_ms, member) end
return {string.format('%.0f', now), due}
""",
    flag="allow-oom",
)


def take_command(keys: Keys, *, hold_ms: int) -> Command:
    """Return the command that takes follow-ups that are due. No other worker takes them for `hold_ms`.

    The reply is the server's unix milliseconds and a list of members.
    """
    return _TAKE([keys.follow_ups], [_TAKE_LIMIT, hold_ms])


_SEND = Script(
    "send_follow_ups",
    PUBLISH_FUNCTION
    + """
local follow_ups, member, ttl, failed_by = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local deleted_count, value_count = tonumber(ARGV[4]), tonumber(ARGV[5])
local failure_count, revived_count = tonumber(ARGV[6]), tonumber(ARGV[7])
-- The numbers of the last key, and of the last argument, before each kind.
local values = 1 + deleted_count
local failures = values + value_count
local revived = failures + 2 * failure_count
local lists = revived + revived_count
local texts = 7
local failure_texts = texts + 2 * value_count
local messages = failure_texts + failure_count
if not checked('ZSCORE', follow_ups, member) then return 0 end
for i = lists + 1, #KEYS do checked('LLEN', KEYS[i]) end
redis.call('PERSIST', follow_ups)
for i = 2, values do redis.call('DEL', KEYS[i]) end
for i = 1, value_count do
  local text, seconds = ARGV[texts + 2 * i - 1], ARGV[texts + 2 * i]
  redis.call('SET', KEYS[values + i], text)
  if seconds ~= '0' then redis.call('EXPIRE', KEYS[values + i], seconds) end
end
for i = 1, failure_count do
  local result_key, record_key = KEYS[failures + 2 * i - 1], KEYS[failures + 2 * i]
  -- A job with a record was submitted on its own: its outcome is not another job's to decide.
  if redis.call('EXISTS', record_key) == 0 then
    publish(result_key, record_key, ttl, ARGV[failure_texts + i])
  end
end
for i = revived + 1, lists do
  local stored = redis.pcall('GET', KEYS[i])
  if type(stored) == 'string' and string.find(stored, failed_by, 1, true) then redis.call('DEL', KEYS[i]) end
end
for i = lists + 1, #KEYS do redis.call('LPUSH', KEYS[i], ARGV[messages + i - lists]) end
redis.call('ZREM', follow_ups, member)
return 1
""",
    flag="allow-oom",
)


def send_command(keys: Keys, member: bytes, writes: Writes, *, ttl: int) -> Command:
    """Return the command that carries out follow-ups and removes them. The reply is 0 if they were removed before.

    Failures are stored for `ttl` seconds.
    """
    names = [keys.follow_ups, *writes.deleted, *(key for key, _, _ in writes.values)]
    for job, _ in writes.failures:
        names += [keys.result(job), keys.job(job)]
    names += [keys.result(job) for job in writes.revived]
    names += [key for key, _ in writes.messages]
    counts = [len(writes.deleted), len(writes.values), len(writes.failures), len(writes.revived)]
    arguments: list[Argument] = [member, ttl, f'"failed_by": {json.dumps(writes.job)}', *counts]
    for _, text, seconds in writes.values:
        arguments += [text, seconds]
    arguments += [failure for _, failure in writes.failures]
    arguments += [message for _, message in writes.messages]
    return _SEND(names, arguments)


_POSTPONE = Script(
    "postpone_follow_ups",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + """
local follow_ups, delay_ms, member = KEYS[1], tonumber(ARGV[1]), ARGV[2]
if not checked('ZSCORE', follow_ups, member) then return 0 end
redis.call('PERSIST', follow_ups)
redis.call('ZADD', follow_ups, now_ms() + delay_ms, member)
return 1
""",
    flag="allow-oom",
)


def postpone_command(keys: Keys, member: bytes, *, delay_ms: int) -> Command:
    """Return the command that lets follow-ups be taken again `delay_ms` from now."""
    return _POSTPONE([keys.follow_ups], [delay_ms, member])


_FAIL = Script(
    "fail_task",
    PUBLISH_FUNCTION
    + """
local result_key, record_key, ttl, failure = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if redis.call('EXISTS', record_key) == 1 then return 0 end
return publish(result_key, record_key, ttl, failure)
""",
)


def fail_command(keys: Keys, task: str, failure: str, *, ttl: int) -> Command:
    """Return the command that stores the failure of a task that can no longer run, unless it has an outcome."""
    return _FAIL([keys.result(task), keys.job(task)], [ttl, failure])


# Celery's own scripts for chords, run as every other script, so that a worker needs no further right.
_CHORD_PART = Script(
    "chord_part",
    CHECKED_FUNCTION
    + """
checked('ZCARD', KEYS[1])
for _, number in ipairs({2, 3, 6}) do checked('GET', KEYS[number]) end
checked('SCARD', KEYS[4])
"""
    + CHORD_PART_RETURN_LUA,
)
_CHORD_EXTEND = Script("chord_extend", CHECKED_FUNCTION + "checked('GET', KEYS[1])" + CHORD_CLAIM_EXTEND_LUA)
_CHORD_CLEANUP = Script("chord_cleanup", CHECKED_FUNCTION + "checked('GET', KEYS[1])" + CHORD_CLEANUP_LUA)


class ChordScript:
    """One of Celery's scripts, called as redis-py's registered scripts are."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def __call__(self, keys: Sequence[bytes], args: Sequence[Argument], client: redis.Redis) -> Any:
        """Run the script."""
        return execute(client, self._script([key.decode() for key in keys], args))


CHORD_PART, CHORD_EXTEND, CHORD_CLEANUP = map(ChordScript, (_CHORD_PART, _CHORD_EXTEND, _CHORD_CLEANUP))


def drop_command(keys: Keys, member: bytes) -> Command:
    """Return the command that removes follow-ups."""
    return Command(("ZREM", keys.follow_ups, member))


def decode_taken(reply: Sequence[object]) -> tuple[int, list[bytes]]:
    """Decode the reply to `take_command`: the server's unix milliseconds, and the members."""
    now_ms, members = reply
    return int(now_ms), list(members)  # type: ignore[call-overload]  # as the script returns them
