"""Scenarios in which the network comes between: replies lost, connections half open."""

from __future__ import annotations

import time

from tests.chaos.arena import Arena
from tests.chaos.scenario import scenario


@scenario(8, "connections half open", long=2, control=1, lease=10.0)
def half_open(arena: Arena) -> None:
    """Nothing passes any more on the connections of workers and producer: no FIN, no RST. New ones pass."""
    arena.start_workers(2, through_proxy=True)
    with arena.load(rate=40, longest=0.1, through_proxy=True):
        for _ in range(arena.times):
            time.sleep(1.5)
            held = frozenset(job for worker in arena.ready for job in arena.held(worker))
            arena.proxy.go_silent()
            moment = time.monotonic()
            arena.record_kill(held)
            if not arena.can_wait(lambda moment=moment: arena.witness.first_after(moment + 1), 20):
                arena.notes.append("no work went on for 20 s")
                break


@scenario(16, "replies to publish and submit lost", long=30, short=4, control=15)
def replies_lost(arena: Arena) -> None:
    """The reply to a worker that publishes, and to a producer that submits, is lost in turn: each asks again."""
    arena.start_workers(2, through_proxy=True)
    with arena.load(rate=60, longest=0.05, through_proxy=True):
        for n in range(arena.times):
            arena.proxy.lose_reply(arena.system.submits if n % 2 else arena.system.ends)
            arena.wait(lambda n=n: arena.proxy.lost > n, "a reply to lose")
            time.sleep(arena.chance.uniform(0, 0.3))
    arena.notes.append(f"{arena.proxy.lost} replies lost")
