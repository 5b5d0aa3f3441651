"""How the event loop ends a free pool process, on a pool that only looks like Celery's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from headrace_worker.process.pool_replacement import PoolReplacement


class Process(SimpleNamespace):
    """A pool process that says that it is ready."""

    def __init__(self, number: int) -> None:
        super().__init__(inqW_fd=number, pid=number, ended=False)

    __hash__ = object.__hash__

    def terminate_controlled(self) -> None:
        self.ended = True


class Pool:
    """As much of Celery's pool as a swap touches."""

    def __init__(self, processes: int) -> None:
        self._state = 0
        self._worker_handler = SimpleNamespace(_state=0)
        self._putlock = SimpleNamespace(shrink=lambda: None)
        self._pool = [Process(number) for number in range(processes)]
        self._processes = processes
        self._all_inqueues = set(range(100))
        self._busy_workers: set[int] = set()
        self._active_writes: set[int] = set()
        self._cache: dict[Any, Any] = {}
        self.flushed: list[Process] = []

    def grow(self, count: int) -> None:
        self._processes += count

    def maintain_pool(self) -> None:
        """As Celery does: what a process that ended has left to say is waited for, then one is forked."""
        for process in [process for process in self._pool if process.ended]:
            self.process_flush_queues(process)
            self._pool.remove(process)
        while len(self._pool) < self._processes:
            self._pool.append(Process(50 + len(self._pool) + len(self.flushed)))

    def process_flush_queues(self, process: Process) -> None:
        self.flushed.append(process)


def swapped(pool: Pool, swap: PoolReplacement) -> None:
    swap.for_pool(pool)
    swap.begin()
    for _ in range(10):
        swap.step()
        pool.maintain_pool()
    assert swap.wait(0)


def test_all_are_replaced_and_none_that_was_ended_free_is_waited_for() -> None:
    pool, swap = Pool(3), PoolReplacement()
    swap.spare_the_loop(pool)
    before = list(pool._pool)
    swapped(pool, swap)
    assert len(pool._pool) == 3
    assert not set(pool._pool) & set(before)
    assert pool.flushed == []


def test_what_a_process_that_ended_by_itself_has_to_say_is_waited_for() -> None:
    pool, swap = Pool(2), PoolReplacement()
    swap.spare_the_loop(pool)
    swapped(pool, swap)
    lost = pool._pool[0]
    lost.ended = True
    pool.maintain_pool()
    assert pool.flushed == [lost]


def test_a_pool_of_another_kind_is_left_alone() -> None:
    PoolReplacement().spare_the_loop(None)
    PoolReplacement().spare_the_loop(SimpleNamespace())
