"""Wait for a condition, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds after which a condition is taken for one that never holds. Only a test that fails waits this long.
DEADLINE = 45.0


def wait_until(
    condition: Callable[[], T], seconds: float = DEADLINE, describe: Callable[[], object] = lambda: ""
) -> T:
    """Wait until a condition holds, and return its value. Fails the test with `describe()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition did not hold within {seconds:g} s. {describe()}"
        time.sleep(0.02)
    return value


async def wait_until_async(condition: Callable[[], T], seconds: float = DEADLINE) -> T:
    """Wait as `wait_until`, without blocking the event loop."""
    async with asyncio.timeout(seconds):
        while not (value := condition()):  # noqa: ASYNC110  # the condition is outside of this process
            await asyncio.sleep(0.01)
    return value
