"""Many futures share one timer, and each expires at its own deadline."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.connection.future_deadlines import FutureDeadlines


class Expirations:
    """Counts the timers of a running loop, and collects the futures that expire."""

    def __init__(self) -> None:
        self.expired: list[asyncio.Future[Any]] = []
        self.deadlines = FutureDeadlines(self.expire)
        self.loop = asyncio.get_running_loop()

    def expire(self, future: asyncio.Future[Any]) -> None:
        self.expired.append(future)
        future.set_result(None)

    def add(self, *seconds: float) -> list[asyncio.Future[Any]]:
        futures = [self.loop.create_future() for _ in seconds]
        for future, end in zip(futures, seconds, strict=True):
            self.deadlines.add(future, end)
        return futures


async def test_futures_expire_in_the_order_of_their_deadlines():
    clock = Expirations()
    late, early, middle = clock.add(0.06, 0.01, 0.03)
    await asyncio.wait([late])
    assert clock.expired == [early, middle, late]


async def test_a_future_that_was_removed_or_is_done_does_not_expire():
    clock = Expirations()
    removed, done, last = clock.add(0.01, 0.01, 0.03)
    clock.deadlines.remove(removed)
    done.set_result("reply")
    await asyncio.wait([last])
    assert clock.expired == [last]
    assert not removed.done()


async def test_a_deadline_that_has_passed_expires_at_once():
    clock = Expirations()
    (future,) = clock.add(-1.0)
    await asyncio.wait_for(future, 1)


async def test_futures_of_one_timeout_set_one_timer(monkeypatch: Any):
    clock = Expirations()
    timers = []
    call_at = clock.loop.call_at

    def count(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(arguments[0])
        return call_at(*arguments, **options)

    monkeypatch.setattr(clock.loop, "call_at", count)
    for future in clock.add(*[30.0] * 100):
        clock.deadlines.remove(future)
    assert len(timers) == 1
    clock.deadlines.close()


async def test_nothing_expires_once_it_is_closed():
    clock = Expirations()
    clock.add(0.01)
    clock.deadlines.close()
    await asyncio.sleep(0.03)
    assert clock.expired == []
