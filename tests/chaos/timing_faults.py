"""Scenarios with time faults: a stopped worker, a long job, and wrong clocks."""

from __future__ import annotations

import signal
import time

from tests.chaos import model
from tests.chaos.environment import Environment
from tests.chaos.kill_faults import SUSTAINABLE_LOAD
from tests.chaos.preload import compile_library
from tests.chaos.scenario import scenario

#: Seconds by which the clock of Redis steps.
_STEP_SECONDS = 30.0
#: Seconds by which the clocks of two workers are wrong.
_OFFSETS_SECONDS = (6 * 3600, -6 * 3600)


@scenario(9, "a worker stopped for longer than its lease", long=6, control=3)
def worker_stopped(env: Environment) -> None:
    """All processes of a worker with a claim are stopped (SIGSTOP) for two leases, then continued (SIGCONT)."""
    env.start_workers(2)
    with env.load(**SUSTAINABLE_LOAD):
        for _ in range(env.repetitions):
            victim = env.random.choice(env.ready_workers)
            env.wait(lambda victim=victim: env.held(victim), "a claim")
            victim.signal_all(signal.SIGSTOP)
            env.record_kill(env.held(victim))
            time.sleep(2 * env.lease)
            victim.signal_all(signal.SIGCONT)
            time.sleep(1)


@scenario(10, "a job of ten leases", long=1, control=1)
def long_job(env: Environment) -> None:
    """A job runs for ten leases, beside other jobs. It keeps its lease and runs once."""
    env.start_workers(2)
    (long,) = env.jobs(1, do=model.SLEEP, amount=10 * env.lease)
    with env.load(rate=20):
        env.submit([long])
        env.holds_within(lambda: env.outcome(long.id), 15 * env.lease)
    runs = sum(run.job == long.id for run in env.runs())
    env.expect(runs == 1, f"the job of ten leases ran {runs} times")
    env.notes.append(f"the long job ran {runs} time{'s' * (runs != 1)}")


@scenario(17, "wrong clocks", long=1)
def clocks_off(env: Environment) -> None:
    """The clock of one worker is six hours ahead, that of another six hours behind.

    Jobs expire and delayed jobs start by the server's clock, and no lease is lost.
    """
    library = compile_library(env.folder, "clock.c")
    for offset in _OFFSETS_SECONDS:
        env.start_standalone_worker(LD_PRELOAD=str(library), CHAOS_CLOCK_OFFSET=str(offset))
    env.start_workers(1)
    with env.load(rate=60, longest=0.1):
        time.sleep(8)
    ran = {run.pid for run in env.runs()}
    env.expect(all(worker.pool & ran for worker in env.workers), "a worker ran no job")
    lost = [worker.name for worker in env.workers if "was lost" in worker.log.read_text()]
    env.expect(not lost, f"leases were lost by {', '.join(lost)}")


@scenario(38, "the clock of Redis steps", long=6, preload="clock.c")
def redis_clock_steps(env: Environment) -> None:
    """The clock of Redis steps forward by half a minute, and back again, while delayed jobs are due.

    Jobs start and expire by that clock, so early by the step at most. Jobs whose leases expire early run again.
    """
    env.clock_ahead = _STEP_SECONDS
    env.start_workers(2)
    with env.load(rate=30, longest=0.1):
        for number in range(env.repetitions):
            env.submit(env.jobs(1, delay=2.0))
            # Due while the clock is right, while it is ahead, and after it stepped back.
            env.submit(env.jobs(1, delay=_STEP_SECONDS / 2))
            env.submit(env.jobs(1, amount=2 * env.lease))  # it runs when the clock steps
            time.sleep(env.random.uniform(1.5, 2.5))
            env.preloaded.set(0 if number % 2 else round(1000 * _STEP_SECONDS))
            env.redis_recovered_at.append(time.monotonic())
        env.preloaded.set(0)
    env.settle_seconds += _STEP_SECONDS
    env.notes.append(f"{env.repetitions} steps of {_STEP_SECONDS:g} s")
