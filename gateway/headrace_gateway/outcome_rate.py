"""The rate at which the jobs of a model end, as this process sees it: when a full queue will have room again."""

from __future__ import annotations

import random
import time
from collections import defaultdict, deque
from collections.abc import Callable

#: Seconds of a slot, and the slots that the rate is counted over: the last minute.
_SLOT_SECONDS, _SLOTS = 5, 12
#: Bounds of Retry-After, in seconds.
_MIN_SECONDS, _MAX_SECONDS = 1, 60


class OutcomeRates:
    """The outcomes of the last minute by model. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: By model: the number of each slot, and the outcomes in it.
        self._slots: dict[str, deque[list[int]]] = defaultdict(lambda: deque(maxlen=_SLOTS))

    def record(self, model: str) -> None:
        """Count an outcome of a model."""
        slots, number = self._slots[model], int(self._clock()) // _SLOT_SECONDS
        if slots and slots[-1][0] == number:
            slots[-1][1] += 1
        else:
            slots.append([number, 1])

    def per_second(self, model: str) -> float:
        """Return the outcomes of a model a second, over the last minute; 0.0 if there was none."""
        first = int(self._clock()) // _SLOT_SECONDS - _SLOTS
        count = sum(count for number, count in self._slots.get(model, ()) if number > first)
        return count / (_SLOT_SECONDS * _SLOTS)

    def retry_after(self, model: str, depth: int) -> int:
        """Return the seconds after which to try a full queue of `depth` jobs again: 1 to 60, spread by a fifth."""
        rate = self.per_second(model)
        seconds = min(_MAX_SECONDS, depth / rate) if rate else _MAX_SECONDS
        spread = random.uniform(0.8, 1.2)  # noqa: S311  # spreads repeats, no secret
        return max(_MIN_SECONDS, min(_MAX_SECONDS, round(seconds * spread)))
