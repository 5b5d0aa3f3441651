"""A scenario: a function that does harm in an arena, and how large it is played."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from tests.chaos.arena import Arena, Ground
from tests.chaos.systems import SYSTEMS
from tests.chaos.verdict import Verdict
from tests.chaos.workers import Nursery

Size = Literal["long", "short"]
Play = Callable[[Arena], None]

#: Seconds a lease lasts at the most where a scenario is played short.
_SHORT_LEASE = 2.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table."""

    number: int
    title: str
    play: Play
    #: How often harm is done, by size, and when stock Celery plays it; 0 is not at all.
    long: int
    short: int
    control: int
    ground: Ground

    @property
    def about(self) -> str:
        """What is done, in a sentence or two."""
        return " ".join((self.play.__doc__ or "").split())


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario as it was played with a system."""

    number: int
    title: str
    about: str
    system: str
    times: int
    lease: float
    seconds: float
    verdict: Verdict
    notes: list[str]


#: All scenarios, by number.
SCENARIOS: dict[int, Scenario] = {}


def scenario(
    number: int, title: str, *, long: int, short: int = 0, control: int = 0, **ground: Any
) -> Callable[[Play], Play]:
    """Make a function a scenario; `ground` as in Ground."""

    def add(play: Play) -> Play:
        SCENARIOS[number] = Scenario(
            number=number,
            title=title,
            play=play,
            long=long,
            short=short,
            control=control,
            ground=Ground(**ground),
        )
        return play

    return add


def play(one: Scenario, system: str, size: Size, nursery: Nursery, seed: int) -> Played:
    """Play a scenario. Raises LeftOut; and TimeoutError or RuntimeError where it cannot be played to its end."""
    ours = system == "headrace"
    times = getattr(one, size) if ours else one.control
    lease = min(one.ground.lease, _SHORT_LEASE) if size == "short" else one.ground.lease
    ground = msgspec.structs.replace(one.ground, lease=lease, mixed=one.ground.mixed and ours)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder,
        Arena(SYSTEMS[system], nursery, Path(folder), ground, times=times, seed=seed) as arena,
    ):
        try:
            one.play(arena)
            verdict = arena.verdict()
        except Exception as error:
            error.add_note(arena.last_words())
            raise
        notes = arena.notes
    return Played(
        number=one.number,
        title=one.title,
        about=one.about,
        system=system,
        times=times,
        lease=lease,
        seconds=time.monotonic() - began,
        verdict=verdict,
        notes=notes,
    )
