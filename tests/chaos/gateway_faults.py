"""Scenarios in which the HTTP gateway, and what is behind it, is killed under HTTP load."""

from __future__ import annotations

import signal
import time
from collections import Counter

from tests.chaos.environment import Environment
from tests.chaos.gateways import Gateways
from tests.chaos.kill_faults import SUSTAINABLE_LOAD, wait_for_two_ready
from tests.chaos.redis_faults import restart
from tests.chaos.scenario import scenario

#: Jobs that have run at least, before more than gateways is killed.
_JOBS = 30


@scenario(28, "gateways, workers and Redis killed under HTTP load", long=15, short=1, lease=5.0)
def gateways_killed(env: Environment) -> None:
    """One of two gateways behind a TCP balancer is killed or told to stop, then also workers and Redis are killed.

    HTTP clients repeat each request until it is answered, with ids of their own, by PUT and by Idempotency-Key.
    """
    env.start_workers(2)
    with Gateways(env) as gateways, gateways.load(**SUSTAINABLE_LOAD):
        for _ in range(env.repetitions):
            for with_signal in (signal.SIGKILL, signal.SIGTERM):
                time.sleep(env.random.uniform(0.3, 2))
                gateways.kill_one(with_signal=with_signal)
                gateways.wait_until_ready()
        env.wait(lambda: len(env.runs()) > _JOBS, f"{_JOBS} jobs", 60)
        # No worker was lost yet and no Redis, so a job that ran twice was accepted twice.
        counts = Counter(run.job for run in env.runs())
        twice = sorted(job for job, count in counts.items() if count > 1)
        env.expect(not twice, f"accepted twice while only gateways were killed: {twice[:5]}")
        for _ in range(env.repetitions):
            time.sleep(env.random.uniform(0.3, 2))
            victim = env.random.choice(wait_for_two_ready(env))
            env.kill(victim)
            gateways.kill_one()
            env.start_worker()
            time.sleep(env.random.uniform(0.3, 2))
            env.redis.kill()
            gateways.kill_one()
            time.sleep(env.random.uniform(0, 1.5))
            restart(env)
        gateways.wait_until_ready()
        env.wait(lambda: env.ready_workers, "a worker")
    env.notes.append(f"{4 * env.repetitions} gateways, {env.repetitions} workers, {env.repetitions} times Redis")
