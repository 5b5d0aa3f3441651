"""The scripts of the notifier: claim notices, and record what became of each.

    take ──> finish      delivered, or nobody wants it
         │─> postpone    another attempt later
         └─> bury        a dead letter
    sweep                the notices of outcomes that were stored without one

A claim sets the next attempt of a notice to the end of the claim. So the notices of a lost notifier are due again
by themselves. Every other script changes a notice only while it is stored as the claim read it: a notifier that
was held up changes nothing that another has done meanwhile. The cost of each is linear in the size of its
arguments.
"""

from __future__ import annotations

import msgspec

from headrace.connection.commands import Argument, Command, Operation, Script
from headrace.connection.lua import CHECKED_FUNCTION, NOW_FUNCTION
from headrace.results.letter_scripts import LETTERS_FUNCTIONS, DeadLetterLimits, names_of_letters
from headrace.results.notices import names_of_notices
from headrace.results.publish import PUBLISH_FUNCTION
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace.wire.notice import Notice

#: Jobs of one call of the sweep.
_JOBS_PER_SWEEP = 250

#: KEYS: notices due, notices. ARGV: most notices, milliseconds of the claim. Returns the server's unix
#: milliseconds, and id and stored bytes of each notice that was due. An id without a notice is removed.
_TAKE = Script(
    "take_notices",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + """
local due, notices, limit, claim_ms = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2])
local now = now_ms()
local ids = checked('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, limit)
checked('HLEN', notices)
local reply = {string.format('%.0f', now)}
redis.call('PERSIST', due)
for _, id in ipairs(ids) do
  local notice = redis.call('HGET', notices, id)
  if notice then
    redis.call('ZADD', due, now + claim_ms, id)
    reply[#reply + 1] = id
    reply[#reply + 1] = notice
  else
    redis.call('ZREM', due, id)
  end
end
return reply
""",
    flag="allow-oom",
)


def take_command(keys: Keys, *, limit: int, claim_ms: int) -> Command:
    """Return the command that claims notices that are due for `claim_ms` milliseconds, at most `limit` of them.

    The reply is the server's unix milliseconds, and for each notice its id and its stored bytes.
    """
    return _TAKE([keys.notices_due, keys.notices], [limit, claim_ms])


#: KEYS: notices due, notices. ARGV: id, the notice as it was claimed. Returns 1 if it was so still.
_FINISH = Script(
    "finish_notice",
    CHECKED_FUNCTION
    + """
local due, notices, id, claimed = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
checked('ZCARD', due)
if checked('HGET', notices, id) ~= claimed then return 0 end
redis.call('HDEL', notices, id)
redis.call('ZREM', due, id)
return 1
""",
    flag="allow-oom",
)


def finish_command(keys: Keys, notice: str, stored: bytes) -> Command:
    """Return the command that ends a notice. The reply is 1 unless it has changed since it was claimed."""
    return _FINISH([keys.notices_due, keys.notices], [notice, stored])


#: KEYS: notices due, notices, endpoints. ARGV: id, the notice as it was claimed, the notice with the attempt,
#: milliseconds until the next one, name and error of the endpoint ('' for none). Returns as FINISH.
_POSTPONE = Script(
    "postpone_notice",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + """
local due, notices, endpoints = KEYS[1], KEYS[2], KEYS[3]
local id, claimed, notice, delay_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local endpoint, failure = ARGV[5], ARGV[6]
checked('ZCARD', due)
checked('HLEN', endpoints)
if checked('HGET', notices, id) ~= claimed then return 0 end
redis.call('PERSIST', due)
redis.call('HSET', notices, id, notice)
redis.call('ZADD', due, now_ms() + delay_ms, id)
if failure ~= '' then redis.call('HSET', endpoints, endpoint, failure) end
return 1
""",
    flag="allow-oom",
)


class EndpointError(msgspec.Struct, frozen=True, kw_only=True):
    """The last error of an endpoint."""

    #: The cause: `http-500`, `timeout`.
    error: str
    #: Unix milliseconds, the server's clock.
    at_ms: int


def postpone_command(
    keys: Keys, notice: Notice, stored: bytes, *, delay_ms: int, error: EndpointError | None
) -> Command:
    """Return the command that stores a notice anew and lets it be claimed in `delay_ms` milliseconds.

    `error` is that of its endpoint. The reply is 1 unless the notice has changed since it was claimed.
    """
    failure = msgspec.json.encode(error) if error else b""
    names = [keys.notices_due, keys.notices, keys.endpoints]
    return _POSTPONE(names, [notice.id, notice.stored, stored, delay_ms, notice.endpoint, failure])


#: KEYS: notices due, notices, endpoints, those of dead letters, the share. ARGV: id, the notice as it was claimed,
#: 1 if it is malformed, id, line and message of the letter, name and error of the endpoint ('' for none), most
#: letters, seconds each is kept. Returns as FINISH.
_BURY = Script(
    "bury_notice",
    CHECKED_FUNCTION
    + NOW_FUNCTION
    + LETTERS_FUNCTIONS
    + """
local due, notices, endpoints, letters, share = KEYS[1], KEYS[2], KEYS[3], letter_keys(4), KEYS[8]
local id, claimed, is_malformed = ARGV[1], ARGV[2], ARGV[3] == '1'
local letter_id, line, message, endpoint, failure = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local max_letters, max_age_seconds = tonumber(ARGV[9]), tonumber(ARGV[10])
checked('ZCARD', due)
checked('HLEN', endpoints)
check_letters(letters, {share})
if checked('HGET', notices, id) ~= claimed then return 0 end
redis.call('PERSIST', due)
local now = now_ms()
store_letter(letters, share, now, letter_id, line, message, is_malformed)
redis.call('HDEL', notices, id)
redis.call('ZREM', due, id)
if failure ~= '' then redis.call('HSET', endpoints, endpoint, failure) end
trim_letters(letters, share, now, max_letters, max_age_seconds, 100)
return 1
""",
    flag="allow-oom",
)


def bury_command(
    keys: Keys,
    notice: str,
    stored: bytes,
    letter: DeadLetter,
    message: bytes,
    *,
    endpoint: str = "",
    error: EndpointError | None = None,
    limits: DeadLetterLimits,
) -> Command:
    """Return the command that turns a notice into a dead letter, and deletes old letters of notices.

    `stored` is the notice as it was claimed, `message` what a replay stores again. The reply is 1 unless the
    notice has changed since it was claimed.
    """
    failure = msgspec.json.encode(error) if error else b""
    share = keys.dead_share(letter.queue, malformed=letter.is_malformed)
    names = [keys.notices_due, keys.notices, keys.endpoints, *names_of_letters(keys), share]
    malformed = int(letter.is_malformed)
    values: list[Argument] = [notice, stored, malformed, letter.id, letter.encode(), message, endpoint, failure]
    return _BURY(names, [*values, limits.max_count, limits.max_age_seconds])


#: KEYS: those of notices, then result key and record of each job. Returns the numbers of stored notices, and of
#: jobs that are under way no more and want none: their record has expired.
_SWEEP = Script(
    "sweep_notices",
    PUBLISH_FUNCTION
    + """
local keys, stored, removed = notice_keys(1), 0, 0
if not keys then return {0, 0} end
for i = 6, #KEYS, 2 do
  local result_key, record_key = KEYS[i], KEYS[i + 1]
  if final[status_of(result_key)] then
    if store_notice(keys, result_key, names_of(record_key), record_key, math.huge) then stored = stored + 1
    else removed = removed + redis.call('ZREM', keys.open, job_of(result_key, keys.open)) end
  elseif redis.call('EXISTS', record_key) == 0 then
    removed = removed + redis.call('ZREM', keys.open, job_of(result_key, keys.open))
  end
end
return {stored, removed}
""",
    flag="allow-oom",
)


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs that a page of a sweep went through."""

    jobs: int
    #: Notices of outcomes that were stored without one, and jobs of which nothing is known any more.
    stored: int
    removed: int


def sweep_page(keys: Keys, start: int) -> Operation[SweepResult]:
    """Go through the jobs under way whose outcome is to be notified, from number `start` on, a page of them.

    A Celery worker without Headrace stores outcomes without a notice, and so does a worker of an older release.
    """
    members = yield Command(("ZRANGE", keys.notices_open, start, start + _JOBS_PER_SWEEP - 1))
    if not members:
        return SweepResult(jobs=0, stored=0, removed=0)
    jobs = [member.decode(errors="replace") for member in members]
    names = [name for job in jobs for name in (keys.result(job), keys.job(job))]
    stored, removed = yield _SWEEP([*names_of_notices(keys), *names])
    return SweepResult(jobs=len(jobs), stored=stored, removed=removed)
