"""Scenarios in which processes of workers are killed."""

from __future__ import annotations

import os
import signal
import time

from tests.chaos.arena import Arena
from tests.chaos.scenario import scenario
from tests.chaos.workers import Worker, children

#: A load of which two pool processes do three quarters of what they can: recovery is measured where one worker can
#: do the work of all. With more, what would be measured is the queue behind those that are left.
CARRIED = {"rate": 30.0, "longest": 0.1}
#: A reply to a claim that is so long, in bytes, has jobs in it.
_JOBS = 200


@scenario(1, "workers killed", long=200, short=2, control=15, lease=10.0)
def workers_killed(arena: Arena) -> None:
    """The processes of a random worker of three are killed (-9), every 0.2 to 3 s; another is ready each time."""
    arena.start_workers(3)
    with arena.load(**CARRIED):
        for _ in range(arena.times):
            time.sleep(arena.chance.uniform(0.2, 3))
            victim = arena.chance.choice(two_ready(arena))
            arena.kill(victim)
            arena.start_worker()
        arena.wait(lambda: arena.ready, "a worker")
    arena.notes.append(f"{arena.times} kills")


def two_ready(arena: Arena) -> list[Worker]:
    """The workers that serve, when there are two."""
    return arena.wait(lambda: ready if len(ready := arena.ready) > 1 else None, "two workers", 15)


@scenario(2, "the reply to a claim lost, then a kill", long=6, control=3)
def claim_lost_then_killed(arena: Arena) -> None:
    """Redis makes the claim, its reply never arrives, and the worker that asked is killed (-9)."""
    arena.start_workers(1)
    with arena.load(**CARRIED):
        for n in range(arena.times):
            (victim,) = arena.start_workers(1, through_proxy=True)
            arena.wait(lambda victim=victim: any(run.pid in victim.pool for run in arena.runs()), "a run")
            arena.proxy.lose_reply(arena.system.takes, then="silent", at_least=_JOBS)
            arena.wait(lambda n=n: arena.proxy.lost > n, "a claim")
            arena.kill(victim)


@scenario(3, "a pool process killed", long=40, control=15)
def pool_process_killed(arena: Arena) -> None:
    """A process of a worker's pool is killed (-9) in the middle of a batch."""
    arena.start_workers(2)
    with arena.load(rate=60, longest=0.1):
        for _ in range(arena.times):
            time.sleep(arena.chance.uniform(0.1, 0.6))
            kill_pool_process(arena)


def kill_pool_process(arena: Arena) -> None:
    """One that is in the middle of a batch."""
    running = arena.wait(lambda: running_now(arena), "a run")
    pid = arena.chance.choice(sorted(running))
    os.kill(pid, signal.SIGKILL)
    arena.record_kill(frozenset(running[pid]))


def running_now(arena: Arena) -> dict[int, set[str]]:
    """By pool process, the jobs it has begun and nobody has ended."""
    pids = {pid for worker in arena.ready for pid in children(worker.pid)}
    running: dict[int, set[str]] = {}
    for run in arena.runs():
        if run.pid in pids and run.job not in arena.witness.published:
            running.setdefault(run.pid, set()).add(run.job)
    return running


@scenario(14, "told to stop, then killed", long=10, control=2)
def stopped_then_killed(arena: Arena) -> None:
    """A worker gets SIGTERM, and SIGKILL before it has drained, as an impatient orchestrator does it."""
    arena.start_workers(2)
    with arena.load(rate=10, longest=0.3):
        for _ in range(arena.times):
            victim = arena.chance.choice(two_ready(arena))
            victim.signal(signal.SIGTERM)
            time.sleep(arena.chance.uniform(0, 0.5))
            arena.kill(victim)
            arena.start_worker()
