"""Compare the costs of a small and a large input in one run, so that a busy machine changes neither."""

from __future__ import annotations

import time
from collections.abc import Callable

#: How much more than linear a cost may grow: caches and allocations make it vary.
SLACK = 2


def processor_seconds(action: Callable[[], object], repetitions: int = 3) -> float:
    """Return the processor time that this process needs for an action, in seconds: the least of several."""
    costs = []
    for _ in range(repetitions):
        started = time.process_time()
        action()
        costs.append(time.process_time() - started)
    return min(costs)
