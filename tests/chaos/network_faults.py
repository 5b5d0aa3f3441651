"""Scenarios with network faults: lost replies and half-open connections."""

from __future__ import annotations

import time

from tests.chaos.environment import Environment
from tests.chaos.scenario import scenario


@scenario(8, "connections half open", long=2, control=1, lease=10.0)
def half_open(env: Environment) -> None:
    """All connections of workers and producer stop passing data, without FIN or RST. New connections work."""
    env.start_workers(2, through_proxy=True)
    with env.load(rate=40, longest=0.1, through_proxy=True):
        for _ in range(env.repetitions):
            time.sleep(1.5)
            held = frozenset(job for worker in env.ready_workers for job in env.held(worker))
            env.proxy.go_silent()
            silent_at = time.monotonic()
            env.record_kill(held)
            if not env.holds_within(lambda silent_at=silent_at: env.recorder.seconds_to_next(silent_at + 1), 20):
                env.notes.append("no outcome for 20 s")
                break


@scenario(16, "replies to publish and submit lost", long=30, short=4, control=15)
def replies_lost(env: Environment) -> None:
    """The replies to a worker's publish and to a producer's submit are lost in turn; each sends it again."""
    env.start_workers(2, through_proxy=True)
    with env.load(rate=60, longest=0.05, through_proxy=True):
        for number in range(env.repetitions):
            env.proxy.lose_reply(env.system.submit_marker if number % 2 else env.system.publish_marker)
            env.wait(lambda number=number: env.proxy.lost_replies > number, "a lost reply")
            time.sleep(env.random.uniform(0, 0.3))
    env.notes.append(f"{env.proxy.lost_replies} replies lost")
