"""A scenario with a fleet of eight workers, of which half or all are killed at once."""

from __future__ import annotations

import signal
import time

from tests.chaos.environment import Environment
from tests.chaos.kill_faults import SUSTAINABLE_LOAD
from tests.chaos.scenario import scenario

_FLEET = 8


@scenario(31, "half of a fleet killed, or all of it", long=4, lease=10.0)
def fleet_killed(env: Environment) -> None:
    """In turn, four and all eight workers of a fleet are killed (SIGKILL) at once, and started again.

    If all are killed, recovery counts from the moment a worker is ready again.
    """
    env.start_workers(_FLEET)
    with env.load(**SUSTAINABLE_LOAD):
        for number in range(env.repetitions):
            time.sleep(env.random.uniform(0.5, 2))
            count = _FLEET if number % 2 else _FLEET // 2
            victims = env.random.sample(env.ready_workers, count)
            for victim in victims:
                victim.signal_all(signal.SIGKILL)
            for victim in victims:
                env.kill(victim)
            started = [env.start_worker() for _ in victims]
            env.wait(lambda: env.ready_workers, "a worker", 60)
            if count == _FLEET:
                env.workers_recovered_at.append(time.monotonic())
            env.wait(lambda started=started: all(worker.is_ready for worker in started), "the fleet", 120)
    env.notes.append(f"{env.killed} workers killed")
