"""Traces of the model: the steps of one run and the state after each, as spin prints them in a simulation."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from tests.model_check.checker import MODEL

#: The traces that are replayed in `make test`, whether spin is installed or not.
FOLDER = Path(__file__).parent / "traces"
#: The bounds of a simulation, wide enough for every kind of step, and its most steps of spin.
_DEFINES = ("TRACE", "FAILURES=6", "CANCELS=2", "REPLAYS=3")
_MAX_STEPS = 3500
_LINE = re.compile(r"^\s*(?:STEP|STATE) .*$", re.MULTILINE)
_FIELD = re.compile(r"(\w+)=([\d,]+)")


class JobState(msgspec.Struct, frozen=True):
    """The state of a job in Redis, in the order in which the model prints it."""

    has_record: int
    #: How often its message lies in each place.
    queued: int
    isolated: int
    delayed: int
    #: 0 none, 1 success, 2 failure, 3 cancelled.
    outcome: int
    has_letter: int
    attempts: int


class LeaseState(msgspec.Struct, frozen=True):
    """The state of a lease in Redis."""

    is_member: int
    #: The jobs in its list, as bits.
    jobs: int


class Step(msgspec.Struct, frozen=True):
    """A step, and the state after it."""

    name: str
    arguments: dict[str, int]
    jobs: tuple[JobState, ...]
    leases: tuple[LeaseState, ...]

    def has_message(self, number: int) -> bool:
        """Return whether the message of a job lies anywhere after the step. Its history tells the attempts."""
        job = self.jobs[number]
        is_leased = any(lease.jobs >> number & 1 for lease in self.leases)
        return bool(job.queued or job.isolated or job.delayed or is_leased)

    def __str__(self) -> str:
        """Return the step as the model prints it."""
        return " ".join([self.name, *(f"{name}={value}" for name, value in self.arguments.items())])


def parse_trace(text: str) -> list[Step]:
    """Parse the lines of a trace. A last step without its whole state is left out."""
    lines = [line.strip().rstrip("-") for line in _LINE.findall(text)]
    steps = []
    for line, state in zip(lines[::2], lines[1::2], strict=False):
        _, name, *_ = line.split()
        fields = [(key, [int(number) for number in numbers.split(",")]) for key, numbers in _FIELD.findall(state)]
        steps.append(
            Step(
                name=name,
                arguments={key: int(number) for key, number in _FIELD.findall(line)},
                jobs=tuple(JobState(*numbers) for key, numbers in fields if key == "job"),
                leases=tuple(LeaseState(*numbers) for key, numbers in fields if key == "lease"),
            )
        )
    while steps and (len(steps[-1].jobs), len(steps[-1].leases)) != (len(steps[0].jobs), len(steps[0].leases)):
        steps.pop()
    return steps


def simulate(seed: int) -> str:
    """Let spin choose a run of the model by a seed, and return its trace."""
    # Half of the simulations have no blocking claims: their steps go into claims.
    defines = [f"-D{define}" for define in (*_DEFINES, *(("NO_BLOCKING",) if seed % 2 else ()))]
    command = ["spin", "-T", f"-n{seed}", f"-u{_MAX_STEPS}", *defines, str(MODEL)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return "".join(f"{line.strip().rstrip('-')}\n" for line in _LINE.findall(output.stdout))


def describe_effects(steps: Sequence[Step]) -> Iterator[tuple[str, ...]]:
    """Yield each step with what it meets and changes. Two steps of the same effect test the same."""
    for before, step in itertools.pairwise(steps):
        changes = sorted(
            f"{field}{getattr(new, field) - getattr(old, field):+d}"
            for old, new in zip(before.jobs, step.jobs, strict=True)
            for field in JobState.__struct_fields__
            if getattr(old, field) != getattr(new, field)
        )
        details = [f"{key}={step.arguments[key]}" for key in ("isolated", "waiting") if key in step.arguments]
        if "lease" in step.arguments:
            lease = before.leases[step.arguments["lease"]]
            details += [f"member={lease.is_member}", f"holds={lease.jobs > 0}"]
        if step.name == "blmove":
            details.append(f"waits={any(job.queued for job in before.jobs)}")
        if "decisions" in step.arguments:
            details.append(f"decides={step.arguments['decisions'] > 0}")
        yield (step.name, *details, *changes)


def choose_traces(seeds: Iterable[int], count: int) -> dict[int, str]:
    """Simulate with these seeds, and return the traces by seed that together show the most effects."""
    traces = {seed: simulate(seed) for seed in seeds}
    effects = {seed: set(describe_effects(parse_trace(text))) for seed, text in traces.items()}
    chosen: dict[int, str] = {}
    shown: set[tuple[str, ...]] = set()
    while len(chosen) < count:
        seed = max(effects, key=lambda seed: len(effects[seed] - shown))
        if not effects[seed] - shown:
            break
        chosen[seed] = traces[seed]
        shown |= effects[seed]
    return chosen


def write_traces(seeds: Iterable[int], count: int) -> int:
    """Replace the stored traces. Returns their number."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.txt"):
        path.unlink()
    traces = choose_traces(seeds, count)
    for seed, text in traces.items():
        (FOLDER / f"seed-{seed}.txt").write_text(text)
    return len(traces)


def read_traces() -> dict[str, str]:
    """Return the stored traces by name."""
    return {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.txt"))}
