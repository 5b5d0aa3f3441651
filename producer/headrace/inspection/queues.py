"""The depth of each queue: the jobs that wait, are delayed, and are under lease, and how many want a worker.

A model has two queues: that of its jobs, and that of its bulk runs, whose jobs are chunks of tables. The second is
shown while it holds jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from operator import add
from typing import Any

import msgspec
from redis.exceptions import NoPermissionError

from headrace.catalog.pauses import Pause, read_pauses
from headrace.catalog.published import list_models
from headrace.connection.commands import Command, Operation, Pipeline, Script
from headrace.connection.errors import is_wrong_type
from headrace.connection.lua import CHECKED_FUNCTION
from headrace.wire.keys import Keys
from headrace.wire.queues import PRIORITY_STEPS, is_bulk_queue, model_name, queue_names
from headrace.wire.stored import report_damaged


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """The number of jobs of one queue: waiting, isolated, delayed, due and leased."""

    model: str
    queue: str
    #: Waiting jobs by priority step, 0 first, those that run again included: `{0: 12, 3: 0, 6: 0, 9: 40000}`.
    by_priority: dict[int, int]
    #: Jobs whose process or worker was lost; they run before all others, each alone.
    isolated: int = 0
    #: Jobs that are not due yet: submitted with a delay, or waiting for a retry.
    delayed: int = 0
    #: Delayed jobs whose time has come; a worker moves them to their lists within a second or so.
    due: int = 0
    #: Jobs that a worker has claimed.
    leased: int = 0
    #: The pause of the model, None if it is not paused.
    paused: Pause | None = None

    @property
    def is_bulk(self) -> bool:
        """True for the queue of the model's bulk runs."""
        return is_bulk_queue(self.queue)

    @property
    def holds_jobs(self) -> bool:
        """True if there is any job, also a delayed one."""
        return bool(self.waiting or self.delayed or self.due or self.leased)

    @property
    def waiting(self) -> int:
        """The jobs a worker could claim now, isolated ones included."""
        return sum(self.by_priority.values()) + self.isolated

    @property
    def backlog(self) -> int:
        """The jobs that want a worker: waiting, due and leased ones. Scale workers by this number.

        Leased jobs count, as the worker that runs them is needed until they end. The jobs of a paused model wait
        for its resume and not for a worker, so only its leased jobs count.
        """
        return self.leased if self.paused is not None else self.waiting + self.due + self.leased


#: A member of `Keys.leases`, and the unix milliseconds at which it expires.
LeaseEntry = tuple[bytes, float]

#: The lists of a queue that workers claim from: isolated jobs, and waiting and retried ones by priority.
_LISTS_PER_QUEUE = 1 + 2 * len(PRIORITY_STEPS)
#: The index in PRIORITY_STEPS that the jobs of each foreign list have (`Keys.foreign_lists`).
_FOREIGN_STEPS = tuple(Keys().lists("").index(target) for _, target in Keys().foreign_lists(""))
#: These lists, and the delayed set.
_KEYS_PER_QUEUE = _LISTS_PER_QUEUE + len(_FOREIGN_STEPS) + 1
#: The most queues that are measured in one step, so that a store of 10,000 models does not hold Redis.
_QUEUES_PER_CALL = 200
#: KEYS: the leases; the lists and the delayed set of each queue. ARGV: keys of a queue. Returns the leases with
#: the time each expires, and the length of each list; of a delayed set how many of its jobs are not due and how
#: many are. -1 stands for a key of another type: it must not hide the other queues.
#:
#: All of it is of one moment: a job that a worker claims meanwhile is neither counted twice nor missed.
_COUNT = Script(
    "count_jobs",
    CHECKED_FUNCTION
    + """
local keys_per_queue = tonumber(ARGV[1])
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local failure
local function count(...)
  local number = redis.pcall(...)
  if type(number) == 'number' then return number end
  if not string.find(number.err, 'WRONGTYPE', 1, true) then failure = number end
  return -1
end
local counts = {}
for i = 2, #KEYS do
  if (i - 1) % keys_per_queue > 0 then
    counts[#counts + 1] = count('LLEN', KEYS[i])
  else
    local delayed = count('ZCARD', KEYS[i])
    local due = delayed > 0 and count('ZCOUNT', KEYS[i], '-inf', now_ms) or 0
    counts[#counts + 1] = delayed - due
    counts[#counts + 1] = due
  end
end
return failure or {checked('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), counts}
""",
    flag="no-writes",
)


class QueueReading(msgspec.Struct, frozen=True):
    """The reply to one command of `measure_commands`."""

    queues: Sequence[str]
    counts: Sequence[int]
    leases: list[LeaseEntry]


def queues_of(models: Iterable[str]) -> list[str]:
    """Return the names of both queues of each model, in the order of the models."""
    return [queue for model in models for queue in queue_names(model)]


def measure_commands(keys: Keys, queues: Sequence[str]) -> list[Command]:
    """Return the commands that measure queues; `decode_readings` decodes their replies.

    Each measures up to 200 queues at one moment.
    """
    return [_measure(keys, group) for group in _groups(queues)]


def _measure(keys: Keys, queues: Sequence[str]) -> Command:
    names = [keys.leases]
    for queue in queues:
        names += [*keys.sources(queue), *(name for name, _ in keys.foreign_lists(queue)), keys.delayed(queue)]
    return _COUNT(names, [_KEYS_PER_QUEUE])


def decode_readings(queues: Sequence[str], replies: Sequence[Any]) -> list[QueueReading]:
    """Decode the replies to `measure_commands` of these queues."""
    return [
        QueueReading(group, counts, _pair(leases))
        for group, (leases, counts) in zip(_groups(queues), replies, strict=True)
    ]


def _groups(queues: Sequence[str]) -> list[Sequence[str]]:
    return [queues[first : first + _QUEUES_PER_CALL] for first in range(0, len(queues), _QUEUES_PER_CALL)]


def decode_depths(
    readings: Iterable[QueueReading], empty_leases: Container[bytes], pauses: Mapping[str, Pause]
) -> list[QueueDepth]:
    """Return the depths of all queues that were read, in their order.

    `empty_leases` is the result of `find_empty_leases`, `pauses` of `read_pauses`.
    """
    depths = []
    for reading in readings:
        leased = _count_leased(member for member, _ in reading.leases if member not in empty_leases)
        for number, queue in enumerate(reading.queues):
            first = number * (_KEYS_PER_QUEUE + 1)
            counts = reading.counts[first : first + _KEYS_PER_QUEUE + 1]
            model = model_name(queue) or ""
            depths.append(_decode_depth(model, queue, counts, leased[queue], pauses.get(model)))
    return depths


def _decode_depth(model: str, queue: str, counts: Sequence[int], leased: int, pause: Pause | None) -> QueueDepth:
    if min(counts) < 0:
        report_damaged(f"a list of {queue}", TypeError())
    isolated, *by_list, delayed, due = (max(0, count) for count in counts)
    steps = len(PRIORITY_STEPS)
    waiting = list(map(add, by_list[:steps], by_list[steps : 2 * steps]))
    for step, length in zip(_FOREIGN_STEPS, by_list[2 * steps :], strict=True):
        waiting[step] += length
    return QueueDepth(
        model=model,
        queue=queue,
        by_priority=dict(zip(PRIORITY_STEPS, waiting, strict=True)),
        isolated=isolated,
        delayed=delayed,
        due=due,
        leased=leased,
        paused=pause,
    )


def read_queues(keys: Keys) -> Operation[list[QueueDepth]]:
    """Measure the queue of every model with a published contract, and that of its bulk runs if it holds jobs."""
    depths = yield from measure_queues(keys, queues_of((yield from list_models(keys))))
    return [depth for depth in depths if depth.holds_jobs or not depth.is_bulk]


def measure_queues(keys: Keys, queues: Sequence[str]) -> Operation[list[QueueDepth]]:
    """Measure queues."""
    replies = []
    for command in measure_commands(keys, queues):
        replies.append((yield command))
    readings = decode_readings(queues, replies)
    empty_leases = yield from find_empty_leases(keys, readings)
    pauses = (yield from read_pauses(keys)) if queues else {}
    return decode_depths(readings, empty_leases, pauses)


def read_leases(keys: Keys) -> Operation[list[LeaseEntry]]:
    """Read the leases that hold jobs: each member of `Keys.leases` and the unix milliseconds at which it expires.

    The lease of a blocking claim is left out while it is empty, and where this user may not read its list.
    """
    leases = _pair((yield Command(("ZRANGE", keys.leases, 0, -1, "WITHSCORES"))))
    empty = yield from _find_empty(keys, {member for member, _ in leases})
    return [(member, expires_ms) for member, expires_ms in leases if member not in empty]


def find_empty_leases(keys: Keys, readings: Iterable[QueueReading]) -> Operation[set[bytes]]:
    """Find the leases of blocking claims that hold no job, and those whose list this user may not read."""
    return (yield from _find_empty(keys, {member for reading in readings for member, _ in reading.leases}))


def _find_empty(keys: Keys, members: Iterable[bytes]) -> Operation[set[bytes]]:
    blocking = [member for member in members if _is_blocking(member)]
    if not blocking:
        return set()
    names = (member.partition(b"#")[0].decode(errors="replace") for member in blocking)
    lengths = yield Pipeline(tuple(("LLEN", keys.lease(name)) for name in names))
    for length in lengths:
        if isinstance(length, Exception) and not (isinstance(length, NoPermissionError) or is_wrong_type(length)):
            raise length  # such as LOADING: it does not say that the lease is empty
    measured = zip(blocking, lengths, strict=True)
    return {member for member, length in measured if not isinstance(length, int) or not length}


def _pair(reply: Sequence[Any]) -> list[LeaseEntry]:
    pairs: Iterable[Any] = reply
    if reply and isinstance(reply[0], bytes | str):  # RESP2 returns members and scores in one flat list
        pairs = zip(reply[::2], reply[1::2], strict=True)
    return [(member, float(expires_ms)) for member, expires_ms in pairs]


def _is_blocking(member: bytes) -> bool:
    return member.partition(b"#")[2].partition(b"#")[0].endswith(b",blocking")


def _count_leased(members: Iterable[bytes]) -> Counter[str]:
    """Return the jobs under lease by queue. A member is `name#list,count,list,count...#queue`.

    The lease of a blocking claim has `,blocking` behind the last count.
    """
    counts: Counter[str] = Counter()
    for member in members:
        _, origins, queue = [*member.decode(errors="replace").split("#", 2), "", ""][:3]
        counts[queue] += sum(int(count) for count in origins.split(",")[1::2] if count.isdecimal())
    return counts
