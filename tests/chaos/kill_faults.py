"""Scenarios in which processes of workers are killed."""

from __future__ import annotations

import os
import signal
import time

from tests.chaos.environment import Environment
from tests.chaos.scenario import scenario
from tests.chaos.workers import Worker, children

#: A load of three quarters of what one pool process can run. Jobs of a lost worker run again in half of the pool
#: processes, one of a worker's two. With a higher load, recovery would measure how long the models take.
SUSTAINABLE_LOAD = {"rate": 30.0, "longest": 0.05}
#: Bytes from which on a reply to a claim contains jobs.
_MIN_CLAIM_BYTES = 200


@scenario(1, "workers killed", long=200, short=2, control=15, lease=10.0)
def workers_killed(env: Environment) -> None:
    """Every 0.2 to 3 s, the processes of a random worker of three are killed (SIGKILL) while another is ready."""
    env.start_workers(3)
    with env.load(**SUSTAINABLE_LOAD):
        for _ in range(env.repetitions):
            time.sleep(env.random.uniform(0.2, 3))
            victim = env.random.choice(wait_for_two_ready(env))
            env.kill(victim)
            env.start_worker()
        env.wait(lambda: env.ready_workers, "a worker")
    env.notes.append(f"{env.repetitions} kills")


def wait_for_two_ready(env: Environment) -> list[Worker]:
    """Wait until two workers are ready, and return the ready ones."""
    return env.wait(lambda: ready if len(ready := env.ready_workers) > 1 else None, "two workers", 15)


@scenario(2, "reply to a claim lost, then a kill", long=6, control=3)
def claim_lost_then_killed(env: Environment) -> None:
    """Redis makes the claim, the reply is lost, and the claiming worker is killed (SIGKILL)."""
    env.start_workers(1)
    with env.load(**SUSTAINABLE_LOAD):
        for number in range(env.repetitions):
            (victim,) = env.start_workers(1, through_proxy=True)
            env.wait(lambda victim=victim: any(run.pid in victim.pool for run in env.runs()), "a run")
            env.proxy.lose_reply(env.system.claim_marker, then="silent", min_bytes=_MIN_CLAIM_BYTES)
            env.wait(lambda number=number: env.proxy.lost_replies > number, "a claim")
            env.kill(victim)


@scenario(3, "a pool process killed", long=40, control=15)
def pool_process_killed(env: Environment) -> None:
    """A process of a worker's pool is killed (SIGKILL) during a batch."""
    env.start_workers(2)
    with env.load(rate=60, longest=0.1):
        for _ in range(env.repetitions):
            time.sleep(env.random.uniform(0.1, 0.6))
            kill_pool_process(env)


def kill_pool_process(env: Environment) -> None:
    """Kill a pool process during a batch."""
    running = env.wait(lambda: running_jobs(env), "a run")
    pid = env.random.choice(sorted(running))
    os.kill(pid, signal.SIGKILL)
    env.killed += 1
    env.record_kill(frozenset(running[pid]))


def running_jobs(env: Environment) -> dict[int, set[str]]:
    """Return the started jobs without an outcome, by the id of the pool process."""
    pids = {pid for worker in env.ready_workers for pid in children(worker.pid)}
    running: dict[int, set[str]] = {}
    for run in env.runs():
        if run.pid in pids and run.job not in env.recorder.published:
            running.setdefault(run.pid, set()).add(run.job)
    return running


@scenario(14, "SIGTERM, then SIGKILL", long=10, control=2)
def stopped_then_killed(env: Environment) -> None:
    """A worker gets SIGTERM, and SIGKILL before it has finished its claims, as from an impatient orchestrator."""
    env.start_workers(2)
    with env.load(rate=10, longest=0.3):
        for _ in range(env.repetitions):
            victim = env.random.choice(wait_for_two_ready(env))
            victim.signal(signal.SIGTERM)
            time.sleep(env.random.uniform(0, 0.5))
            env.kill(victim)
            env.start_worker()
