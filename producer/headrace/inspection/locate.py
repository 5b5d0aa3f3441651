"""Where a job lies that has no outcome yet: in a list of its queue, delayed, or under a lease.

No key tells where a job lies, so the lists are searched. A queue is in the order of submission, and an id of
ours tells when that was: halving finds its place among a million jobs in twenty steps. Where that does not help,
the jobs that are taken next are looked through, a bounded number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from redis.exceptions import NoPermissionError, ResponseError

from headrace.connection.commands import Command, Operation, Script
from headrace.wire.attempts import Attempt, decode_queued_message
from headrace.wire.keys import Keys, queue_name
from headrace.wire.message import submission_time

#: Jobs one call of a script looks at, so that Redis is held for a millisecond or two; and calls for one list.
_PART, _PARTS = 500, 20
#: Jobs looked at on both sides of where one should be: as many as a call submits in a millisecond or two.
_NEAR = 2000


class JobLocation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job lies."""

    model: str
    #: `waiting` in its queue; `again`, to run before all others and alone; `delayed`; `leased` by a worker.
    state: Literal["waiting", "again", "delayed", "leased"]
    #: The runs the job has behind it, oldest first.
    attempts: tuple[Attempt, ...] = ()
    #: Jobs of the queue that are taken before it, of those that wait.
    ahead: int | None = None
    #: When a delayed job is due, unix milliseconds.
    due_ms: int | None = None
    #: The lease, and the jobs under it: 1 is alone.
    claim: str | None = None
    claim_size: int = 0


# A Lua function: whether a message, or a frame, is that of a job. Its body is base64, or its quotes are escaped.
_IS = """
local function is(frame, id)
  return string.find(frame, '"id":"' .. id .. '"', 1, true) or string.find(frame, '"id": "' .. id .. '"', 1, true)
end
local function tried(frame)
  return string.byte(frame) == 1 and string.match(frame, '^[^\\n]+\\n') or ''
end
"""

#: KEYS: a list. ARGV: id; the moment of its submission, as ids tell it, or ''; first and last place to look at.
#: Where there is a moment, it is looked at the places where it should be. Returns {place from 0 on the left or -1,
#: length of the list, attempts as in a frame}.
_IN_LIST = Script(
    _IS
    + """
local key, id, moment, first, last = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local length = redis.call('LLEN', key)
if moment ~= '' then
  local newer, older = 0, length
  while newer < older do
    local middle = math.floor((newer + older) / 2)
    local frame = redis.call('LINDEX', key, middle)
    local found = frame and string.match(frame, '"id":%s?"(%x%x%x%x%x%x%x%x%-%x%x%x%x)%-7')
    if not found then return {-1, length, ''} end
    if found > moment then newer = middle + 1 else older = middle end
  end
  -- Producers' clocks differ a little, and jobs of one call share a millisecond.
  first, last = math.max(0, newer - (last - first)), newer + (last - first)
end
for at, frame in ipairs(redis.call('LRANGE', key, first, last)) do
  if is(frame, id) then return {first + at - 1, length, tried(frame)} end
end
return {-1, length, ''}
"""
)

#: KEYS: delayed. ARGV: id, the least score, how many to pass over, how many to look at. Returns {score or '',
#: attempts, how many were looked at}.
_DELAYED = Script(
    _IS
    + """
local frames = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', ARGV[3], ARGV[4])
for at = 1, #frames, 2 do
  if is(frames[at], ARGV[1]) then return {frames[at + 1], tried(frames[at]), 0} end
end
return {'', '', #frames / 2}
"""
)


class JobLocator:
    """The plans that find one job. They raise ResponseError where the user may not look (`may_not_look`)."""

    def __init__(self, keys: Keys, job: str, submitted_ms: int | None, earliest_ms: int | None) -> None:
        self._keys, self._job = keys, job
        at = "" if submitted_ms is None else f"{submitted_ms:012x}"
        # That of the id is its own; many jobs of one call were submitted at the same moment.
        self._moment = job[:13] if submission_time(job) else at and f"{at[:8]}-{at[8:]}"
        self._earliest = "-inf" if earliest_ms is None else earliest_ms

    def find(self, models: Sequence[str]) -> Operation[JobLocation | None]:
        """Where the job lies, of these models; None where it was not seen: it ended, moved, or is deep in one."""
        for model in models:
            # In the order jobs move in, so that one that moves while it is looked for is seen all the same.
            found = (yield from self._delayed(model)) or (yield from self._waiting(model))
            if found is not None:
                return found
        return (yield from self._leased(models))

    def _delayed(self, model: str) -> Operation[JobLocation | None]:
        key = self._keys.delayed(queue_name(model))
        for part in range(_PARTS):
            due, head, count = yield _DELAYED([key], [self._job, self._earliest, part * _PART, _PART])
            if due:
                return JobLocation(model=model, state="delayed", due_ms=int(float(due)), attempts=_attempts(head))
            if count < _PART:
                break
        return None

    def _waiting(self, model: str) -> Operation[JobLocation | None]:
        queue = queue_name(model)
        place, ahead, head = yield from self._in_list(self._keys.isolated(queue), ordered=False)
        if place is not None:
            return JobLocation(model=model, state="again", ahead=place, attempts=_attempts(head))
        for key in self._keys.lists(queue):
            place, length, head = yield from self._in_list(key, ordered=True)
            if place is not None:
                return JobLocation(model=model, state="waiting", ahead=ahead + place, attempts=_attempts(head))
            ahead += length
        return None

    def _in_list(self, key: str, *, ordered: bool) -> Operation[tuple[int | None, int, bytes]]:
        """How many are taken before the job, None where it was not seen; the length of the list; the attempts."""
        if ordered and self._moment:
            at, length, head = yield _IN_LIST([key], [self._job, self._moment, 0, _NEAR])
            if at >= 0:
                return length - 1 - at, length, head
        else:
            length = yield Command(("LLEN", key))
        for part in range(_PARTS):  # from the right, where the next are taken
            last = length - 1 - part * _PART
            if last < 0:
                break
            at, now, head = yield _IN_LIST([key], [self._job, "", max(0, last - _PART + 1), last])
            if at >= 0:
                return now - 1 - at, now, head
        return None, length, b""

    def _leased(self, models: Sequence[str]) -> Operation[JobLocation | None]:
        queues = {queue_name(model): model for model in models}
        for member in (yield Command(("ZRANGE", self._keys.leases, 0, -1))):
            name, _, rest = member.decode(errors="replace").partition("#")
            model = queues.get(rest.partition("#")[2])
            if model is None:
                continue
            at, length, head = yield _IN_LIST([self._keys.lease(name)], [self._job, "", 0, -1])
            if at >= 0:
                return JobLocation(
                    model=model, state="leased", claim=name, claim_size=length, attempts=_attempts(head)
                )
        return None


def _attempts(head: bytes) -> tuple[Attempt, ...]:
    return decode_queued_message(head)[0]


def is_not_permitted(error: ResponseError) -> bool:
    """Whether it says that this user may not look into queues. Within a script, it comes as text."""
    return isinstance(error, NoPermissionError) or "user executing the script" in str(error)
