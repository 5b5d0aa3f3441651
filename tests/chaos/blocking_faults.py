"""A scenario with faults of workers, Redis and the network while idle workers wait in a blocking claim."""

from __future__ import annotations

import signal
import time
from functools import partial

import redis

from tests.chaos.environment import Environment
from tests.chaos.redis_faults import end_connections, restart
from tests.chaos.scenario import scenario
from tests.chaos.step_faults import IDLE_LOAD, SteppedWorkers
from tests.support.armed_steps import BLOCKING_STEPS

#: Bytes from which on the reply to a BLMOVE contains a job.
_MIN_JOB_BYTES = 150
#: Seconds for which Redis is away.
_AWAY_SECONDS = 0.5


@scenario(37, "faults while workers wait in a blocking claim", long=2)
def blocking_claim(env: Environment) -> None:
    """Few jobs come, so that each arrives in the reply to a BLMOVE, while a worker, Redis or the network fails.

    A worker is killed (SIGKILL) as it begins to wait, while it waits, and when a job has arrived. Redis is killed,
    connections end, are cut or are half open, and the reply with a job is lost.
    """
    stepped = SteppedWorkers(env, 2, env.proxy.url)
    faults = [
        _kill_redis,
        end_connections,
        lambda env: env.proxy.cut(),
        lambda env: env.proxy.go_silent(),
        partial(_lose_job, then="cut"),
        partial(_lose_job, then="silent"),
    ]
    kills = waits = 0
    with env.load(**IDLE_LOAD, through_proxy=True):
        for _ in range(env.repetitions):
            for step in BLOCKING_STEPS:
                victim = stepped.take(step, "all", signal.SIGKILL)
                if victim is not None:
                    env.kill(victim)
                    kills += 1
                    started = stepped.start()
                    env.wait(lambda started=started: started.is_ready, "a worker", 60)
            for fault in faults:
                env.wait(lambda: _is_waited(env.server), "a blocking claim")
                fault(env)
                waits += 1
                time.sleep(env.random.uniform(0.3, 1))
    env.notes.append(f"{kills} kills of workers; {waits} faults of Redis and the network while a BLMOVE waited")


def _is_waited(server: redis.Redis) -> bool:
    """Return True if a worker waits in a blocking claim."""
    return any(client["cmd"] == "blmove" for client in server.client_list())


def _kill_redis(env: Environment) -> None:
    env.kill_redis()
    time.sleep(_AWAY_SECONDS)
    restart(env)


def _lose_job(env: Environment, *, then: str) -> None:
    """Lose the next reply to a BLMOVE that contains a job."""
    lost = env.proxy.lost_replies
    env.proxy.lose_reply(b"BLMOVE", then="cut" if then == "cut" else "silent", min_bytes=_MIN_JOB_BYTES)
    env.wait(lambda: env.proxy.lost_replies > lost, "a lost reply")
