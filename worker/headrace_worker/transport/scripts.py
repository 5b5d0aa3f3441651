"""The life of a claim in Redis: small scripts, each a typed function.

    claim ──> renew ──> publish      the outcomes are written and the lease is gone, in one step
                 │────> release      back to where the jobs came from, uncounted
                 └────> lapse        the owner was lost: back, to run alone, with the attempt written down
    due                              delayed jobs whose time has come go to their queue

A lease is two things: a member of the sorted set `leases`, with the moment it lapses as its score, and a list
that holds the claimed messages, byte for byte. The member says who claimed, from which lists, of which queue,
and is never used again: whoever finds it missing has lost the claim. That is the fence.

A message that ran and was lost comes back as a frame: the byte 1, one `cause,owner,milliseconds;` for each
attempt, a newline, and the message as it was. Nothing ever rewrites a message.

Redis does not undo a script that fails half way, and in a full Redis it refuses a script whose first write
takes memory. So a claim pops before it records, and once it has popped nothing can stop it; the others begin
with a write that takes no memory (PERSIST, which changes nothing here), and remove the lease last. Where one
of them fails, its jobs are still under their lease. Time is the server's. All keys are declared.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import redis

from headrace.publish import FUNCTION as PUBLISH_FUNCTION
from headrace.queues import PRIORITY_STEPS, Keys, model_of

#: The byte a frame with attempts begins with; a message, being JSON, never does.
TRIED = b"\x01"


class LeaseKeys(msgspec.Struct, frozen=True):
    """The keys of claims, private to this transport."""

    keys: Keys

    @property
    def leases(self) -> str:
        """A sorted set: every lease, by the moment (server's milliseconds) it lapses."""
        return f"{self.keys.prefix}headrace:leases"

    @property
    def malformed(self) -> str:
        """A list: messages that are no job at all, byte for byte."""
        return f"{self.keys.prefix}headrace:malformed"

    def lease(self, name: str) -> str:
        """A list: the frames of a claim."""
        return f"{self.keys.prefix}headrace:lease:{name}"

    def again(self, queue: str) -> str:
        """A list: frames to run again, each alone."""
        return f"{self.keys.prefix}headrace:again:{queue}"

    def delayed(self, queue: str) -> str:
        """A sorted set: frames not to be run before their score (unix milliseconds)."""
        return f"{self.keys.prefix}headrace:delayed:{queue}"

    def sources(self, queue: str) -> list[str]:
        """The lists a claim takes from: `again`, then by priority."""
        return [self.again(queue), *self.keys.lists(queue)]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim may take of one queue."""

    queue: str
    #: Jobs at the most, and bytes after which no further job is taken.
    jobs: int = 1
    bytes: int = 1
    #: Seconds the first job may wait for others, to be predicted with them.
    wait: float = 0.0
    #: Leave the queue alone unless it has `jobs` waiting.
    full_only: bool = False
    #: Whether the owner will say when it is done. Else what is taken is gone, as a consumer may wish.
    leased: bool = True


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Ownership of a claim's jobs, for a time."""

    #: Owner and number: never used twice.
    name: str
    queue: str
    #: How many frames came from which of `LeaseKeys.sources`, in the order they were taken.
    origins: tuple[tuple[int, int], ...]

    @property
    def member(self) -> str:
        """The lease in `leases`: all there is to know of it, so that anyone can bring its jobs back."""
        origins = ",".join(str(number) for origin in self.origins for number in origin)
        return f"{self.name}#{origins}#{self.queue}"

    @property
    def of_jobs(self) -> bool:
        """Whether it holds jobs, and not the message of an ordinary task."""
        return model_of(self.queue) is not None


def lease_of(member: bytes) -> Lease | None:
    """The lease a member of `leases` stands for; None for what none of us wrote."""
    try:
        name, origins, queue = member.decode().split("#", 2)
        numbers = [int(number) for number in origins.split(",")]
        return Lease(name=name, queue=queue, origins=tuple(zip(numbers[::2], numbers[1::2], strict=True)))
    except ValueError:
        return None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs taken from one queue in one step."""

    lease: Lease
    frames: Sequence[bytes]
    #: Some job was cancelled lately: look whether one of these was.
    look: bool = False


class Held(msgspec.Struct, frozen=True):
    """Nothing was taken; these queues have jobs, but not yet as many as were asked for."""

    queues: tuple[str, ...]


# KEYS: leases, the new lease, cancelled; then the five sources of each queue.
# ARGV: name of the lease, how long it lasts (ms), '1' to take the lowest priority first; then name, jobs, bytes,
# '1' for full_only and '1' for leased of each queue.
# Returns {queue (from 1), {source, count, ...}, frames, 1 if a job was cancelled lately}, or {0, {queues held}}.
CLAIM = """
local leases, lease, name, lasts, lowest = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local queues = (#KEYS - 3) / 5
local frames, bytes, largest, origins = {}, 0, 0, {}
redis.call('ZCARD', leases)  -- where it is a key of another kind, fail now: nothing is popped yet

local function source(queue, index) return KEYS[4 + 5 * (queue - 1) + index] end
local function ask(queue, field) return ARGV[3 + 5 * (queue - 1) + field] end

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

local function hold(queue)
  if ask(queue, 5) == '1' then
    local at = redis.call('TIME')
    local first = 1
    while first <= #frames do  -- Lua's stack takes no more than a few thousand values at once
      redis.call('RPUSH', lease, unpack(frames, first, math.min(first + 999, #frames)))
      first = first + 1000
    end
    redis.call('ZADD', leases, at[1] * 1000 + math.floor(at[2] / 1000) + lasts,
               name .. '#' .. table.concat(origins, ',') .. '#' .. ask(queue, 1))
  end
  return {queue, origins, frames, redis.call('EXISTS', KEYS[3])}
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

local first, last, step = 1, 4, 1
if lowest then first, last, step = 4, 1, -1 end
for index = first, last, step do
  for queue = 1, queues do
    local jobs, room = tonumber(ask(queue, 2)), tonumber(ask(queue, 3))
    if not holding[queue] and take(queue, index, jobs, room) then
      for more = first, last, step do
        if more ~= index then take(queue, more, jobs, room) end
      end
      return hold(queue)
    end
  end
end
return {0, held}
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

# KEYS: leases, lease, malformed, delayed; then result key and record of each outcome.
# ARGV: member, seconds outcomes are kept, number of outcomes, of malformed frames, of inboxes; the outcomes as
# stored; the malformed frames; the channels of the inboxes; for each outcome which inbox (from 1; 0 is none);
# then moment and frame of each delayed job.
# Returns nil when the lease is lost, else 1 or 0 for each outcome: whether it was published.
PUBLISH = (
    PUBLISH_FUNCTION
    + """
local outcomes, malformed, inboxes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local channels = 5 + outcomes + malformed
local replies, ours = {}, false
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  -- Asked again, as the first reply was lost on its way? Then what is stored is, to the byte, what we bring.
  for i = 1, outcomes do
    replies[i] = redis.pcall('GET', KEYS[3 + 2 * i]) == ARGV[5 + i] and 1 or 0
    ours = ours or replies[i] == 1
  end
  return ours and replies
end
redis.call('PERSIST', KEYS[1])
for i = 1, outcomes do
  replies[i] = publish(KEYS[3 + 2 * i], KEYS[4 + 2 * i], ARGV[2], ARGV[5 + i])
end
for inbox = 1, inboxes do  -- a client that waits for many jobs hears of them together
  local told = {}
  for i = 1, outcomes do
    if replies[i] == 1 and tonumber(ARGV[channels + inboxes + i]) == inbox then told[#told + 1] = ARGV[5 + i] end
  end
  redis.call('PUBLISH', ARGV[channels + inbox], table.concat(told, '\\n'))
end
for i = 1, malformed do redis.call('LPUSH', KEYS[3], ARGV[5 + outcomes + i]) end
for i = channels + inboxes + outcomes + 1, #ARGV, 2 do redis.call('ZADD', KEYS[4], ARGV[i], ARGV[i + 1]) end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return replies
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

# KEYS: leases, lease, the five sources. ARGV: member, '1' if only when lapsed; then source and count of each
# origin. Returns the number of frames that went back.
RELEASE = (
    ENDING
    + """
if not ending(KEYS[1], ARGV[1], ARGV[2] == '1') then return 0 end
local frames, at = redis.call('LRANGE', KEYS[2], 0, -1), 0
for i = 3, #ARGV, 2 do
  local count = tonumber(ARGV[i + 1])
  for frame = math.min(at + count, #frames), at + 1, -1 do
    redis.call('RPUSH', KEYS[3 + ARGV[i]], frames[frame])
  end
  at = at + count
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return #frames
"""
)

# KEYS: leases, lease, again. ARGV: member, '1' if only when lapsed, cause and owner of the attempt.
# Returns the number of frames that went back.
LAPSE = (
    ENDING
    + """
local moment = ending(KEYS[1], ARGV[1], ARGV[2] == '1')
if not moment then return 0 end
local frames = redis.call('LRANGE', KEYS[2], 0, -1)
for i = #frames, 1, -1 do
  local tried, message = string.match(frames[i], '^\\1([^\\n]*)\\n(.*)$')
  local attempt = ARGV[3] .. ',' .. moment .. ';'
  redis.call('RPUSH', KEYS[3], '\\1' .. (tried or '') .. attempt .. '\\n' .. (message or frames[i]))
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

# KEYS: delayed, the four lists of the queue. ARGV: how many at the most. Returns how many were due.
# The list is the one of the message's priority: its first `"priority":`, as the body is base64.
DUE = """
local at = redis.call('TIME')
local now = at[1] * 1000 + math.floor(at[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, frame in ipairs(due) do
  redis.call('ZREM', KEYS[1], frame)
  local priority = tonumber(string.match(frame, '"priority":%s*(%d+)') or '0')
  redis.call('LPUSH', KEYS[2 + math.min(3, math.floor(priority / 3))], frame)
end
return #due
"""


def claim_call(
    names: LeaseKeys, name: str, asks: Sequence[Ask], *, lasts_ms: int, lowest_first: bool
) -> tuple[list[str], list[str | int]]:
    """KEYS and ARGV of CLAIM; it is sent without waiting for the reply, which `claimed` reads."""
    keys = [names.leases, names.lease(name), names.keys.cancelled]
    values: list[str | int] = [name, lasts_ms, int(lowest_first)]
    for ask in asks:
        keys += names.sources(ask.queue)
        values += [ask.queue, ask.jobs, ask.bytes, int(ask.full_only), int(ask.leased)]
    return keys, values


def claimed(reply: Sequence[Any], name: str, asks: Sequence[Ask]) -> Claim | Held:
    """What CLAIM replied."""
    queue, numbers, *rest = reply
    if not queue:
        return Held(tuple(asks[number - 1].queue for number in numbers))
    frames, look = rest
    origins = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    lease = Lease(name=name, queue=asks[queue - 1].queue, origins=origins)
    return Claim(lease=lease, frames=frames, look=bool(look))


class Leases:
    """What an owner, or anyone who sweeps, does with leases. Raises redis.RedisError."""

    def __init__(self, client: redis.Redis, names: LeaseKeys) -> None:
        self._client, self._names = client, names
        self._claim = client.register_script(CLAIM)
        self._renew = client.register_script(RENEW)
        self._publish = client.register_script(PUBLISH)
        self._finish = client.register_script(FINISH)
        self._release = client.register_script(RELEASE)
        self._lapse = client.register_script(LAPSE)
        self._lapsed = client.register_script(LAPSED)
        self._due = client.register_script(DUE)

    def claim(self, name: str, asks: Sequence[Ask], *, lasts_ms: int, lowest_first: bool = False) -> Claim | Held:
        """Take what waits, under a lease."""
        keys, values = claim_call(self._names, name, asks, lasts_ms=lasts_ms, lowest_first=lowest_first)
        return claimed(self._claim(keys, values), name, asks)

    def renew(self, leases: Sequence[Lease], *, lasts_ms: int) -> list[Lease]:
        """Let leases last from now; returns those that are lost."""
        members = {lease.member.encode(): lease for lease in leases}
        lost = self._renew([self._names.leases], [lasts_ms, *members])
        return [members[member] for member in lost]

    def publish(
        self,
        lease: Lease,
        outcomes: Mapping[str, bytes],
        *,
        ttl: int,
        inboxes: Mapping[str, str] = MappingProxyType({}),
        malformed: Sequence[bytes] = (),
        delayed: Sequence[tuple[int, bytes]] = (),
    ) -> list[bool] | None:
        """End a claim: store outcomes by job id, put malformed and delayed frames where they belong.

        `inboxes` says, by job id, which client's inbox is told of an outcome.

        Says of each outcome whether it was published; None when the lease was lost, and nothing was done.
        """
        keys = self._names.keys
        names = [*self._of(lease), self._names.malformed, self._names.delayed(lease.queue)]
        for job in outcomes:
            names += [keys.result(job), keys.job(job)]
        numbers = {inbox: number for number, inbox in enumerate(dict.fromkeys(inboxes.values()), start=1)}
        values: list[str | int | bytes] = [lease.member, ttl, len(outcomes), len(malformed), len(numbers)]
        values += [*outcomes.values(), *malformed, *map(keys.inbox, numbers)]
        values += [numbers[inboxes[job]] if job in inboxes else 0 for job in outcomes]
        for moment, frame in delayed:
            values += [moment, frame]
        replies = self._publish(names, values)
        return None if replies is None else [bool(reply) for reply in replies]

    def set_aside(self, lease: Lease | None, frame: bytes) -> None:
        """Keep a message nobody can read, byte for byte, and end its lease."""
        if lease is None:
            self._client.lpush(self._names.malformed, frame)
        else:
            self.publish(lease, {}, ttl=1, malformed=[frame])

    def finish(self, lease: Lease) -> bool:
        """End a claim whose messages are done with; says whether it was still held."""
        return bool(self._finish(self._of(lease), [lease.member]))

    def release(self, lease: Lease, *, only_if_lapsed: bool = False) -> int:
        """Put a claim's messages back where they came from, as if never taken; returns how many."""
        names = [*self._of(lease), *self._names.sources(lease.queue)]
        origins = (number for origin in lease.origins for number in origin)
        return int(self._release(names, [lease.member, int(only_if_lapsed), *origins]))

    def lapse(self, lease: Lease, cause: str, *, owner: str, only_if_lapsed: bool = False) -> int:
        """Take a claim from its owner. Its jobs are to run again, each alone, one attempt the more.

        Messages of ordinary queues go back where they came from. Returns how many went back.
        """
        if not lease.of_jobs:
            return self.release(lease, only_if_lapsed=only_if_lapsed)
        names = [*self._of(lease), self._names.again(lease.queue)]
        return int(self._lapse(names, [lease.member, int(only_if_lapsed), f"{cause},{owner}"]))

    def lapsed(self, most: int = 100) -> list[Lease]:
        """Leases whose time is over, whoever owned them."""
        return [lease for member in self._lapsed([self._names.leases], [most]) if (lease := lease_of(member))]

    def named(self, names: Container[str]) -> list[Lease]:
        """The leases that are held under one of these names."""
        members: list[bytes] = self._client.zrange(self._names.leases, 0, -1)  # type: ignore[assignment]  # bytes
        return [lease for member in members if (lease := lease_of(member)) and lease.name in names]

    def due(self, queue: str, most: int = 500) -> int:
        """Move delayed jobs whose time has come to their queue; returns how many."""
        return int(self._due([self._names.delayed(queue), *self._names.keys.lists(queue)], [most]))

    def _of(self, lease: Lease) -> list[str]:
        return [self._names.leases, self._names.lease(lease.name)]


assert len(PRIORITY_STEPS) == 4, "the scripts count on four lists to a queue"  # noqa: S101  # a fact, not a check
