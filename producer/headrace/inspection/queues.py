"""How much waits in each queue, and how much is under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from headrace.catalog import published
from headrace.connection.commands import Command, Operation, Pipeline, Script
from headrace.wire.keys import PRIORITY_STEPS, Keys, queue_name
from headrace.wire.message import submitted_at


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of a model: those that wait, those that are delayed, and those a worker has taken."""

    model: str
    queue: str
    #: Waiting jobs by priority step, 0 first: `{0: 12, 3: 0, 6: 0, 9: 40000}`.
    by_priority: dict[int, int]
    #: Jobs that were lost with what ran them; they wait to run again, before all others and each alone.
    isolated: int = 0
    #: Jobs whose time has not come: submitted with a delay, or to be tried again.
    delayed: int = 0
    #: Jobs a worker has taken.
    leased: int = 0

    @property
    def waiting(self) -> int:
        """The jobs a worker could take now."""
        return sum(self.by_priority.values()) + self.isolated


#: KEYS: the four lists, `again` and `delayed` of each queue.
_LENGTHS = Script("""
local lengths = {}
for i, key in ipairs(KEYS) do lengths[i] = redis.call(i % 6 == 0 and 'ZCARD' or 'LLEN', key) end
return lengths
""")


def lengths(keys: Keys, models: Sequence[str]) -> Command:
    """The command that measures the queues of models at one moment; `depths` reads its reply."""
    queues = [queue_name(model) for model in models]
    return _LENGTHS(
        [name for queue in queues for name in (*keys.lists(queue), keys.isolated(queue), keys.delayed(queue))]
    )


def read_leases(keys: Keys) -> Operation[list[tuple[bytes, float]]]:
    """The leases that hold jobs, and when each lapses (unix milliseconds).

    One that an idle worker left for the next job to come under has a part of a millisecond in its score at first.
    Where this user may not see what is under it, nothing is.
    """
    reply = yield Command(("ZRANGE", keys.leases, 0, -1, "WITHSCORES"))
    pairs: Iterable[Any] = reply
    if reply and isinstance(reply[0], bytes | str):  # in turn, in RESP2
        pairs = zip(reply[::2], reply[1::2], strict=True)
    leases = [(member, float(lapses)) for member, lapses in pairs]
    left = [member for member, lapses in leases if lapses % 1]
    if not left:
        return leases
    names = (member.partition(b"#")[0].decode(errors="replace") for member in left)
    lengths = yield Pipeline(tuple(("LLEN", keys.lease(name)) for name in names))
    full = {member for member, length in zip(left, lengths, strict=True) if isinstance(length, int) and length}
    return [(member, lapses) for member, lapses in leases if not lapses % 1 or member in full]


def depths(
    models: Sequence[str], measured: Sequence[int], leases: Iterable[tuple[bytes, float]]
) -> list[QueueDepth]:
    """The depths in the reply to `lengths` and the leases `held`, in the order of the models."""
    steps = len(PRIORITY_STEPS)
    leased = _leased(member for member, _ in leases)
    found = []
    for at, model in enumerate(models):
        *waiting, again, delayed = measured[at * (steps + 2) : (at + 1) * (steps + 2)]
        found.append(
            QueueDepth(
                model=model,
                queue=queue_name(model),
                by_priority=dict(zip(PRIORITY_STEPS, waiting, strict=True)),
                isolated=again,
                delayed=delayed,
                leased=leased[queue_name(model)],
            )
        )
    return found


def read_queues(keys: Keys) -> Operation[list[QueueDepth]]:
    """Measure the queue of every model that has a contract."""
    models = yield from published.list_models(keys)
    if not models:
        return []
    measured = yield lengths(keys, models)
    leases = yield from read_leases(keys)
    return depths(models, measured, leases)


#: KEYS: lists of jobs. Returns the id of the job of each that is taken next, '' where there is none.
_NEXT = Script("""
local ids = {}
for i, key in ipairs(KEYS) do
  local frame = redis.call('LINDEX', key, -1)
  ids[i] = frame and string.match(frame, '"correlation_id":%s?"([^"]*)"') or ''
end
return ids
""")


def next_ids(keys: Keys, models: Sequence[str]) -> Command:
    """The command that names the jobs that are taken next; `waits` reads its reply."""
    return _NEXT([name for model in models for name in keys.lists(queue_name(model))])


def waits(models: Sequence[str], ids: Sequence[bytes], now: datetime) -> dict[str, float]:
    """Seconds the job that waits longest has waited, by model; of those where one waits and its id tells."""
    steps, found = len(PRIORITY_STEPS), {}
    for at, model in enumerate(models):
        said = (submitted_at(one.decode(errors="replace")) for one in ids[at * steps : (at + 1) * steps])
        if moments := [moment for moment in said if moment is not None]:
            found[model] = max(0.0, (now - min(moments)).total_seconds())
    return found


def _leased(members: Iterable[bytes]) -> Counter[str]:
    """Jobs under lease by queue: a member is `name#list,count,list,count...#queue`."""
    found: Counter[str] = Counter()
    for member in members:
        _, origins, queue = [*member.decode(errors="replace").split("#", 2), "", ""][:3]
        found[queue] += sum(int(count) for count in origins.split(",")[1::2] if count.isdecimal())
    return found
