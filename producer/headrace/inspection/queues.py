"""The depth of each queue: the jobs that wait, are delayed, and are under lease, and the longest wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import add
from typing import Any

import msgspec

from headrace.catalog.pauses import Pause, read_pauses
from headrace.catalog.published import list_models
from headrace.connection.commands import Command, Operation, Pipeline, Script
from headrace.wire.keys import PRIORITY_STEPS, Keys, queue_name
from headrace.wire.stored import report_damaged


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """The number of jobs of one model: waiting, isolated, delayed and leased."""

    model: str
    queue: str
    #: Waiting jobs by priority step, 0 first, those that run again included: `{0: 12, 3: 0, 6: 0, 9: 40000}`.
    by_priority: dict[int, int]
    #: Jobs whose process or worker was lost; they run before all others, each alone.
    isolated: int = 0
    #: Jobs that are not due yet: submitted with a delay, or waiting for a retry.
    delayed: int = 0
    #: Jobs that a worker has claimed.
    leased: int = 0
    #: The pause of the model, None if it is not paused.
    paused: Pause | None = None

    @property
    def waiting(self) -> int:
        """The jobs a worker could claim now, isolated ones included."""
        return sum(self.by_priority.values()) + self.isolated


#: The lists of a queue that workers claim from: isolated jobs, and waiting and retried ones by priority.
_LISTS_PER_QUEUE = 1 + 2 * len(PRIORITY_STEPS)
#: The index in PRIORITY_STEPS that the jobs of each foreign list have (`Keys.foreign_lists`).
_FOREIGN_STEPS = tuple(Keys().lists("").index(target) for _, target in Keys().foreign_lists(""))
#: These lists, and the delayed set.
_KEYS_PER_QUEUE = _LISTS_PER_QUEUE + len(_FOREIGN_STEPS) + 1
#: KEYS: the lists and the delayed set of each queue. ARGV: keys of a queue. Returns the length of each; -1 for one
#: that is of another type: it must not hide the other queues.
_LENGTHS = Script(
    "count_jobs",
    """
local keys_per_queue = tonumber(ARGV[1])
local lengths = {}
for i, key in ipairs(KEYS) do
  local length = redis.pcall(i % keys_per_queue == 0 and 'ZCARD' or 'LLEN', key)
  if type(length) == 'table' then
    if not string.find(length.err, 'WRONGTYPE', 1, true) then return length end
    length = -1
  end
  lengths[i] = length
end
return lengths
""",
    flag="no-writes",
)


def measure_command(keys: Keys, models: Sequence[str]) -> Command:
    """Return the command that measures the queues of models at one moment; `decode_depths` reads its reply."""
    names: list[str] = []
    for queue in map(queue_name, models):
        names += [*keys.sources(queue), *(name for name, _ in keys.foreign_lists(queue)), keys.delayed(queue)]
    return _LENGTHS(names, [_KEYS_PER_QUEUE])


def decode_depths(
    models: Sequence[str],
    lengths: Sequence[int],
    leases: Iterable[tuple[bytes, float]],
    pauses: Mapping[str, Pause],
) -> list[QueueDepth]:
    """Return the depths, in the order of `models`.

    `lengths` is the reply to `measure_command`, `leases` the result of `read_leases`, `pauses` of `read_pauses`.
    """
    leased = _count_leased(member for member, _ in leases)
    depths = []
    for number, model in enumerate(models):
        first = number * _KEYS_PER_QUEUE
        lengths_of_queue = lengths[first : first + _KEYS_PER_QUEUE]
        if min(lengths_of_queue) < 0:
            report_damaged(f"a list of {queue_name(model)}", TypeError())
        isolated, *by_list, delayed = (max(0, length) for length in lengths_of_queue)
        steps = len(PRIORITY_STEPS)
        waiting = list(map(add, by_list[:steps], by_list[steps : 2 * steps]))
        for step, length in zip(_FOREIGN_STEPS, by_list[2 * steps :], strict=True):
            waiting[step] += length
        queue = queue_name(model)
        depths.append(
            QueueDepth(
                model=model,
                queue=queue,
                by_priority=dict(zip(PRIORITY_STEPS, waiting, strict=True)),
                isolated=isolated,
                delayed=delayed,
                leased=leased[queue],
                paused=pauses.get(model),
            )
        )
    return depths


def read_queues(keys: Keys) -> Operation[list[QueueDepth]]:
    """Measure the queue of every model that has a published contract."""
    models = yield from list_models(keys)
    if not models:
        return []
    lengths = yield measure_command(keys, models)
    leases = yield from read_leases(keys)
    pauses = yield from read_pauses(keys)
    return decode_depths(models, lengths, leases, pauses)


def read_leases(keys: Keys) -> Operation[list[tuple[bytes, float]]]:
    """Read the leases that hold jobs: each member of `Keys.leases` and the unix milliseconds at which it expires.

    The lease of a blocking claim is left out while it is empty, and where this user may not read its list.
    """
    reply = yield Command(("ZRANGE", keys.leases, 0, -1, "WITHSCORES"))
    pairs: Iterable[Any] = reply
    if reply and isinstance(reply[0], bytes | str):  # RESP2 returns members and scores in one flat list
        pairs = zip(reply[::2], reply[1::2], strict=True)
    leases = [(member, float(expires_ms)) for member, expires_ms in pairs]
    blocking = [member for member, _ in leases if _is_blocking(member)]
    if not blocking:
        return leases
    names = (member.partition(b"#")[0].decode(errors="replace") for member in blocking)
    lengths = yield Pipeline(tuple(("LLEN", keys.lease(name)) for name in names))
    measured = zip(blocking, lengths, strict=True)
    empty = {member for member, length in measured if not isinstance(length, int) or not length}
    return [(member, expires_ms) for member, expires_ms in leases if member not in empty]


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
