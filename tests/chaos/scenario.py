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
        """The fault, in a sentence or two."""
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


def play(chosen: Scenario, system: str, size: Size, nursery: Nursery, seed: int) -> Played:
    """Play a scenario. Raises LeftOut; and TimeoutError or RuntimeError where it cannot be played to its end."""
    is_headrace = system == "headrace"
    times = getattr(chosen, size) if is_headrace else chosen.control
    lease = min(chosen.ground.lease, _SHORT_LEASE) if size == "short" else chosen.ground.lease
    ground = msgspec.structs.replace(chosen.ground, lease=lease, mixed=chosen.ground.mixed and is_headrace)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder,
        Arena(SYSTEMS[system], nursery, Path(folder), ground, times=times, seed=seed) as arena,
    ):
        try:
            chosen.play(arena)
            verdict = arena.verdict()
        except Exception as error:
            error.add_note(arena.last_words())
            raise
        notes = arena.notes
    return Played(
        number=chosen.number,
        title=chosen.title,
        about=chosen.about,
        system=system,
        times=times,
        lease=lease,
        seconds=time.monotonic() - began,
        verdict=verdict,
        notes=notes,
    )
