"""Finds a job that has no outcome yet: in a list of its queue, in the delayed set, or under a lease.

No key records where a job is, so the lists are searched. A queue is ordered by submission, and an id made by
Headrace contains that time: a binary search finds the job among a million in twenty steps. Otherwise a bounded
number of the jobs that are claimed next is searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from redis.exceptions import NoPermissionError, ResponseError

from headrace.clock import decode_unix_ms
from headrace.connection.commands import Command, Operation, Script
from headrace.wire.attempts import MAX_HISTORY_BYTES, Attempt, decode_delayed, decode_queued_message
from headrace.wire.keys import Keys
from headrace.wire.message import submission_time
from headrace.wire.queues import CLAIM_ORDER, FIRST_SOURCE, ISOLATED_SOURCE, holds_histories, model_name

#: Jobs that one script call searches, so that it blocks Redis for 1 to 2 ms; and calls for one list.
_CHUNK, _MAX_CHUNKS = 500, 20
#: Jobs searched on each side of the expected position: as many as a call submits within 1 to 2 ms.
_NEIGHBOURS = 2000

JobLocationState = Literal["waiting", "isolated", "delayed", "leased"]


class JobLocation(msgspec.Struct, frozen=True, kw_only=True):
    """The place of a job in its queue, or the claim it belongs to."""

    model: str
    #: `isolated`: it waits to run alone, before all others.
    state: JobLocationState
    #: The attempts so far, oldest first.
    attempts: tuple[Attempt, ...] = ()
    #: Jobs of the queue that are claimed before it; None unless it is waiting or isolated.
    ahead: int | None = None
    #: The moment a delayed job is due, unix milliseconds.
    due_ms: int | None = None
    #: The name of the lease of its claim, and the number of jobs under it: 1 is alone.
    lease: str | None = None
    claim_size: int = 0


# The cost of both scripts is linear in the bytes of the messages that one call searches.
# Lua functions. `contains_job`: whether a queued message is the job's; its body is base64, or has its quotes
# escaped, so that an id in an instance does not match. `head`: the bytes that hold the history of a message, if it
# may have one; `first` is the number of its first byte. Python parses them.
_LUA_FUNCTIONS = """
local function contains_job(message, id)
  return string.find(message, '"id":"' .. id .. '"', 1, true)
    or string.find(message, '"id": "' .. id .. '"', 1, true)
end
local function head(message, first)
  return string.byte(message, first) == 1 and string.sub(message, 1, HEAD_BYTES) or ''
end
""".replace("HEAD_BYTES", str(MAX_HISTORY_BYTES + 1))

#: KEYS: a list. ARGV: id; the moment of submission as ids contain it, or ''; first and last index to search.
#: With a moment, that many jobs around its position are searched instead. Returns {index from the left or -1,
#: length of the list, head of the message}.
_SEARCH_LIST = Script(
    "search_list",
    _LUA_FUNCTIONS
    + """
local key, id, moment, first, last = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local length = redis.call('LLEN', key)
if moment ~= '' then
  local newer, older = 0, length
  while newer < older do
    local middle = math.floor((newer + older) / 2)
    -- Redis 6.2 walks to a positive index from the left, however near the right end it is.
    local message = redis.call('LINDEX', key, middle < length / 2 and middle or middle - length)
    local submitted = message and string.match(message, '"id":%s?"(%x%x%x%x%x%x%x%x%-%x%x%x%x)%-7')
    if not submitted then return {-1, length, ''} end
    if submitted > moment then newer = middle + 1 else older = middle end
  end
  -- The clocks of producers differ a little, and the jobs of one call share a millisecond.
  first, last = math.max(0, newer - (last - first)), newer + (last - first)
end
for i, message in ipairs(redis.call('LRANGE', key, first, last)) do
  if contains_job(message, id) then return {first + i - 1, length, head(message, 1)} end
end
return {-1, length, ''}
""",
    flag="no-writes",
)

#: KEYS: delayed. ARGV: id, lowest score, jobs to skip, jobs to search. Returns {score or '', head of the
#: member, jobs searched}.
_SEARCH_DELAYED = Script(
    "search_delayed",
    _LUA_FUNCTIONS
    + """
local scored = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', ARGV[3], ARGV[4])
for i = 1, #scored, 2 do
  if contains_job(scored[i], ARGV[1]) then return {scored[i + 1], head(scored[i], 2), 0} end
end
return {'', '', #scored / 2}
""",
    flag="no-writes",
)


class JobLocator:
    """Operations that find one job. They raise ResponseError where the user may not read (`is_not_permitted`).

    `submitted_ms` is the moment of submission and `earliest_ms` the moment the job is due, both unix milliseconds,
    None where unknown.
    """

    def __init__(self, keys: Keys, job: str, submitted_ms: int | None, earliest_ms: int | None) -> None:
        self._keys, self._job = keys, job
        self._moment = ""
        if submission_time(job):
            self._moment = job[:13]  # more precise than a millisecond: one call submits many jobs in a millisecond
        elif submitted_ms is not None:
            digits = f"{submitted_ms:012x}"
            self._moment = f"{digits[:8]}-{digits[8:]}"
        self._earliest = "-inf" if earliest_ms is None else earliest_ms

    def find(self, queues: Sequence[str]) -> Operation[JobLocation | None]:
        """Find the job in these queues. Returns None where it finished, moved, or is too deep in its queue."""
        for queue in queues:
            # In the order in which jobs move, so that a job that moves during the search is still found.
            location = (yield from self._find_delayed(queue)) or (yield from self._find_waiting(queue))
            if location is not None:
                return location
        return (yield from self._find_leased(queues))

    def _find_delayed(self, queue: str) -> Operation[JobLocation | None]:
        key = self._keys.delayed(queue)
        for chunk in range(_MAX_CHUNKS):
            arguments = [self._job, self._earliest, chunk * _CHUNK, _CHUNK]
            due_ms, head, searched = yield _SEARCH_DELAYED([key], arguments)
            if due_ms:
                attempts = _decode_attempts(*decode_delayed(head))
                return JobLocation(
                    model=model_name(queue) or queue,
                    state="delayed",
                    due_ms=decode_unix_ms(due_ms),
                    attempts=attempts,
                )
            if searched < _CHUNK:
                break
        return None

    def _find_waiting(self, queue: str) -> Operation[JobLocation | None]:
        sources, ahead = self._keys.sources(queue), 0
        for source in CLAIM_ORDER:
            is_list_of_producers = not holds_histories(source)
            position, length, head = yield from self._search(sources[source], ordered=is_list_of_producers)
            if position is not None:
                return JobLocation(
                    model=model_name(queue) or queue,
                    state="isolated" if source == ISOLATED_SOURCE else "waiting",
                    ahead=ahead + position,
                    attempts=_decode_attempts(source, head),
                )
            ahead += length
        return None

    def _search(self, key: str, *, ordered: bool) -> Operation[tuple[int | None, int, bytes]]:
        """Return the jobs of the list that are claimed before this one, the list's length, and the message's head.

        The first is None where the job was not found. `ordered` says that the list is in the order of submission.
        """
        if ordered and self._moment:
            index, length, head = yield _SEARCH_LIST([key], [self._job, self._moment, 0, _NEIGHBOURS])
            if index >= 0:
                return length - 1 - index, length, head
        else:
            length = yield Command(("LLEN", key))
        for chunk in range(_MAX_CHUNKS):  # from the right end, where jobs are claimed
            last = length - 1 - chunk * _CHUNK
            if last < 0:
                break
            first = max(0, last - _CHUNK + 1)
            index, new_length, head = yield _SEARCH_LIST([key], [self._job, "", first, last])
            if index >= 0:
                return new_length - 1 - index, new_length, head
        return None, length, b""

    def _find_leased(self, queues: Sequence[str]) -> Operation[JobLocation | None]:
        for member in (yield Command(("ZRANGE", self._keys.leases, 0, -1))):
            name, origins, queue = [*member.decode(errors="replace").split("#", 2), "", ""][:3]
            if queue not in queues:
                continue
            index, length, head = yield _SEARCH_LIST([self._keys.lease(name)], [self._job, "", 0, -1])
            if index >= 0:
                return JobLocation(
                    model=model_name(queue) or queue,
                    state="leased",
                    lease=name,
                    claim_size=length,
                    attempts=_decode_attempts(_source_of(origins, index), head),
                )
        return None


def _source_of(origins: str, index: int) -> int:
    """Return the source of the message at an index of a lease; `origins` is `source,count,source,count`."""
    numbers = [int(number) for number in origins.split(",") if number.isdecimal()]
    for source, count in zip(numbers[::2], numbers[1::2], strict=False):
        if index < count:
            return source
        index -= count
    return FIRST_SOURCE


def _decode_attempts(source: int, head: bytes) -> tuple[Attempt, ...]:
    """Return the attempts in the head of a queued message; none if a producer may have written them."""
    return decode_queued_message(head)[0] if holds_histories(source) else ()


def is_not_permitted(error: ResponseError) -> bool:
    """Return whether the error says that this user lacks a permission. Scripts report it only as text."""
    texts = ("user executing the script", "ACL failure in script")
    return isinstance(error, NoPermissionError) or any(text in str(error) for text in texts)
