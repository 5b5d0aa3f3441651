"""Cancel a job: publish its outcome, or ask the workers to, where the Redis user may not write outcomes.

    cancel ─> the user may write outcomes ───> published
          └─> he may not: a request is stored ─> a worker publishes it, within a second
                                            └─> a worker that claims the job publishes it before the job would run

An id without a record and without a stored state is unknown: nobody has submitted it, or a plain Celery client
has. To cancel it is to end a job that may be submitted later, so the caller says whether that is meant.

Of the documented users only `worker` may write outcomes. So a stolen credential of a producer can cancel the jobs
whose ids it has, and make up no outcome.
"""

from __future__ import annotations

from datetime import datetime

from headrace.connection.commands import Argument, Command, Operation, Script
from headrace.errors import InvalidInput
from headrace.results.notices import names_of_notices
from headrace.results.publish import PUBLISH_FUNCTION, publish_command
from headrace.wire.keys import Keys
from headrace.wire.names import check_job_id
from headrace.wire.outcome import Cancelled, encode_outcome

#: Seconds after a cancellation during which workers check whether a job was cancelled before they run it.
CANCELLED_SECONDS = 86_400
#: Most requests that wait for a worker, and requests that a worker carries out at a time.
_MAX_REQUESTS, _REQUESTS_PER_CALL = 100_000, 500

#: KEYS: result key, record, the mark of cancellations, requests, those of notices. ARGV: outcome, its seconds, id,
#: unix seconds, seconds of the mark, 1 to cancel an unknown id too, most requests. Returns 1 if the outcome is a
#: cancellation, 0 if the job has another or is unknown, 2 if a request is stored. The mark comes first: a worker
#: that claims the job from now on looks for its outcome.
_CANCEL = Script(
    "cancel",
    PUBLISH_FUNCTION
    + """
local result_key, record_key, cancelled, requests = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local outcome, ttl, id, now, mark_seconds, may_be_unknown, max_requests = unpack(ARGV)
local status = status_of(result_key)
if final[status] then return status == 'REVOKED' and 1 or 0 end
if may_be_unknown ~= '1' and not status and redis.call('EXISTS', record_key) == 0 then return 0 end
local pending = checked('ZCARD', requests)
-- Redis 6.2 cannot tell what a user may do; there, every user may write outcomes.
local function may(...) return not redis.acl_check_cmd or redis.acl_check_cmd(...) end
local may_publish = may('SET', result_key, outcome) and may('PUBLISH', result_key, outcome)
local notices = may_publish and notice_keys(5)
redis.call('SET', cancelled, 1, 'EX', mark_seconds)
if may_publish then return publish(result_key, record_key, ttl, outcome, notices) end
if pending >= tonumber(max_requests) then
  return redis.error_reply('ERR ' .. pending .. ' cancellations wait for a worker')
end
redis.call('ZADD', requests, now, id)
return 2
""",
)


def cancel(keys: Keys, job: str, *, ttl: int, now: datetime, unknown: bool = False) -> Operation[bool | None]:
    """Cancel a job unless it has an outcome. Return True if its outcome is now a cancellation.

    None if the workers are asked to cancel it. The outcome is stored for `ttl` seconds. With `unknown`, an id that
    Redis does not know is cancelled too: a job that is submitted under it later does not run.
    """
    outcome = encode_outcome(Cancelled(job=job), now)
    names = [keys.result(job), keys.job(job), keys.cancelled, keys.cancel_requests, *names_of_notices(keys)]
    arguments: list[Argument] = [outcome, ttl, job, int(now.timestamp()), CANCELLED_SECONDS]
    reply = yield _CANCEL(names, [*arguments, int(unknown), _MAX_REQUESTS])
    return None if reply == 2 else bool(reply)


def carry_out_requests(keys: Keys, *, ttl: int, now: datetime) -> Operation[int]:
    """Cancel the jobs that others asked workers to cancel, unless they have an outcome. Return their number."""
    members = yield Command(("ZRANGE", keys.cancel_requests, 0, _REQUESTS_PER_CALL - 1))
    if not members:
        return 0
    cancelled = []
    for member in members:
        try:
            cancelled.append(Cancelled(job=check_job_id(member.decode())))
        except (InvalidInput, UnicodeDecodeError):
            continue
    if cancelled:
        yield publish_command(keys, cancelled, ttl=ttl, now=now)
    yield Command(("ZREM", keys.cancel_requests, *members))
    return len(cancelled)
