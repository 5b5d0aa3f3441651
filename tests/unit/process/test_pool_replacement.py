"""The event loop replaces free pool processes; tested with a stand-in for Celery's pool."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from headrace_worker.process.pool_replacement import PoolReplacement


class Process(SimpleNamespace):
    """A pool process that is ready."""

    def __init__(self, number: int) -> None:
        super().__init__(inqW_fd=number, pid=number, has_ended=False)

    __hash__ = object.__hash__

    def terminate_controlled(self) -> None:
        self.has_ended = True


class Pool:
    """The attributes of Celery's pool that a replacement uses."""

    def __init__(self, processes: int) -> None:
        self._state = 0
        self._worker_handler = SimpleNamespace(_state=0)
        self._putlock = SimpleNamespace(shrink=lambda: None)
        self._pool = [Process(number) for number in range(processes)]
        self._processes = processes
        self._proc_alive_timeout = 4.0
        self._all_inqueues = set(range(100))
        self._busy_workers: set[int] = set()
        self._active_writes: set[int] = set()
        self._cache: dict[Any, Any] = {}
        self.flushed: list[Process] = []

    def grow(self, count: int) -> None:
        self._processes += count

    def maintain_pool(self) -> None:
        """As Celery does: wait for the last output of each process that ended, then fork another."""
        for process in [process for process in self._pool if process.has_ended]:
            self.process_flush_queues(process)
            self._pool.remove(process)
        while len(self._pool) < self._processes:
            self._pool.append(Process(50 + len(self._pool) + len(self.flushed)))

    def process_flush_queues(self, process: Process) -> None:
        self.flushed.append(process)


def replace_processes(pool: Pool, replacement: PoolReplacement) -> None:
    replacement.attach(pool)
    replacement.begin()
    for _ in range(10):
        replacement.step()
        pool.maintain_pool()
    assert replacement.wait(0)


def test_all_processes_are_replaced_without_waiting_for_output_of_idle_processes() -> None:
    pool, replacement = Pool(3), PoolReplacement()
    replacement.skip_flush_of_idle_processes(pool)
    before = list(pool._pool)
    replace_processes(pool, replacement)
    assert len(pool._pool) == 3
    assert not set(pool._pool) & set(before)
    assert pool.flushed == []


def test_the_output_of_a_process_that_ended_by_itself_is_waited_for() -> None:
    pool, replacement = Pool(2), PoolReplacement()
    replacement.skip_flush_of_idle_processes(pool)
    replace_processes(pool, replacement)
    lost = pool._pool[0]
    lost.has_ended = True
    pool.maintain_pool()
    assert pool.flushed == [lost]


def test_a_pool_of_another_kind_is_not_changed() -> None:
    PoolReplacement().skip_flush_of_idle_processes(None)
    PoolReplacement().skip_flush_of_idle_processes(SimpleNamespace())


def test_new_processes_have_the_time_that_their_models_take_besides_celery_s() -> None:
    seconds = [10.0]
    pool, replacement = Pool(2), PoolReplacement(lambda: sum(seconds))
    replacement.attach(pool)
    assert pool._proc_alive_timeout == 14.0
    seconds.append(5.0)  # another version arrived
    replace_processes(pool, replacement)
    assert pool._proc_alive_timeout == 19.0
    seconds.clear()
    replace_processes(pool, replacement)
    assert pool._proc_alive_timeout == 4.0


def test_a_callback_waits_until_every_process_is_ready() -> None:
    pool, replacement, calls = Pool(2), PoolReplacement(), list[str]()
    replacement.attach(pool)
    pool._all_inqueues = {0}
    replacement.when_complete(lambda: calls.append("complete"))
    replacement.step()
    assert calls == []
    pool._all_inqueues = {0, 1}
    replacement.step()
    replacement.step()
    assert calls == ["complete"]
