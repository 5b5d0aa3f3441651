"""Scenarios: functions that inject faults into an environment, and their sizes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from tests.chaos.check import CheckResult
from tests.chaos.environment import Environment, Requirements
from tests.chaos.systems import SYSTEMS

Size = Literal["long", "short"]
ScenarioFunction = Callable[[Environment], None]

#: Seconds of the longest lease in a short run.
_SHORT_LEASE_SECONDS = 2.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A fault, and the number of its repetitions."""

    number: int
    title: str
    function: ScenarioFunction
    #: Repetitions in a long run, in a short run, and with stock Celery; with 0 the scenario does not run.
    long: int
    short: int
    control: int
    requirements: Requirements

    @property
    def fault(self) -> str:
        """The description of the fault: the docstring of the function."""
        return " ".join((self.function.__doc__ or "").split())


class ScenarioResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a scenario with one system."""

    number: int
    title: str
    fault: str
    system: str
    repetitions: int
    lease: float
    seconds: float
    #: The number of processes killed.
    kills: int
    check: CheckResult
    notes: list[str]


#: All scenarios, by number.
SCENARIOS: dict[int, Scenario] = {}


def scenario(
    number: int, title: str, *, long: int, short: int = 0, control: int = 0, **requirements: Any
) -> Callable[[ScenarioFunction], ScenarioFunction]:
    """Register a function as a scenario. `requirements` are the fields of `Requirements`."""

    def register(function: ScenarioFunction) -> ScenarioFunction:
        SCENARIOS[number] = Scenario(
            number=number,
            title=title,
            function=function,
            long=long,
            short=short,
            control=control,
            requirements=Requirements(**requirements),
        )
        return function

    return register


def run_scenario(scenario: Scenario, system: str, size: Size, seed: int) -> ScenarioResult:
    """Run a scenario. Raises SkipScenario, or TimeoutError or RuntimeError if it does not come to its end."""
    is_headrace = system == "headrace"
    repetitions = getattr(scenario, size) if is_headrace else scenario.control
    lease = (
        min(scenario.requirements.lease, _SHORT_LEASE_SECONDS) if size == "short" else scenario.requirements.lease
    )
    requirements = msgspec.structs.replace(
        scenario.requirements, lease=lease, mixed=scenario.requirements.mixed and is_headrace
    )
    started_at = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder,
        Environment(SYSTEMS[system], Path(folder), requirements, repetitions=repetitions, seed=seed) as env,
    ):
        try:
            scenario.function(env)
            check = env.check()
        except Exception as error:
            error.add_note(env.log_tails())
            raise
        notes = env.notes
    return ScenarioResult(
        number=scenario.number,
        title=scenario.title,
        fault=scenario.fault,
        system=system,
        repetitions=repetitions,
        lease=lease,
        seconds=time.monotonic() - started_at,
        kills=env.killed,
        check=check,
        notes=notes,
    )
