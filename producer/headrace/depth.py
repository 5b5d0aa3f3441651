"""How much waits in each queue."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.plan import Command, Script
from headrace.queues import PRIORITY_STEPS, Keys, queue_name


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs that wait for a model. Jobs a worker has taken, also to delay them, are not among them."""

    model: str
    queue: str
    #: Waiting jobs by priority step, 0 first: `{0: 12, 3: 0, 6: 0, 9: 40000}`.
    by_priority: dict[int, int]

    @property
    def waiting(self) -> int:
        """The waiting jobs of all priorities."""
        return sum(self.by_priority.values())


_LENGTHS = Script("""
local lengths = {}
for i, list in ipairs(KEYS) do lengths[i] = redis.call('LLEN', list) end
return lengths
""")


def lengths(keys: Keys, models: Sequence[str]) -> Command:
    """The command that measures the queues of models at one moment; `depths` reads its reply."""
    return _LENGTHS([name for model in models for name in keys.lists(queue_name(model))])


def depths(models: Sequence[str], reply: Sequence[int]) -> list[QueueDepth]:
    """The depths in a reply to `lengths`, in the order of the models."""
    steps = len(PRIORITY_STEPS)
    return [
        QueueDepth(
            model=model,
            queue=queue_name(model),
            by_priority=dict(zip(PRIORITY_STEPS, reply[at * steps : (at + 1) * steps], strict=True)),
        )
        for at, model in enumerate(models)
    ]
