"""The kills of a soak: a seeded choice of victims and times."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

Victim = Literal["pool process", "worker", "gateway", "Flower", "Redis"]

#: The kills of a round: each victim this often, in a random order.
ROUND: dict[Victim, int] = {"pool process": 4, "worker": 3, "gateway": 2, "Flower": 2, "Redis": 1}
#: The share of the time between two kills within which a kill moves by chance.
_JITTER = 0.3


class PlannedKill(msgspec.Struct, frozen=True):
    """A kill: its second after the start, and its victim. `choice` (0 to 1) picks among several of a kind."""

    second: float
    victim: Victim
    choice: float


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """A kill that was done: the second after the start, and the seconds until its successor was ready."""

    victim: Victim
    second: float
    ready_after: float


def plan_kills(seed: int, seconds: float, every: float) -> list[PlannedKill]:
    """Return the kills of a soak: one in each period of `every` seconds, the last a period before the end."""
    rng = random.Random(seed)
    kills: list[PlannedKill] = []
    victims: list[Victim] = []
    number = 1
    while (number + 1) * every <= seconds:
        if not victims:
            victims = [victim for victim, count in ROUND.items() for _ in range(count)]
            rng.shuffle(victims)
        second = number * every + rng.uniform(-_JITTER, _JITTER) * every
        kills.append(PlannedKill(second, victims.pop(), rng.random()))
        number += 1
    return kills
