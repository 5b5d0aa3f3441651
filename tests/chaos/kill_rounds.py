"""Kill processes in rounds, until a number of kills is reached: `make chaos-long`.

A round is one scenario with kills. Its number and the seed decide which, and all its random choices, so that each
can be run again: `--seed 7 --round 12`. A round writes a line to a file (`--out`) when it ends; with the same seed
and file the rounds go on behind the last line.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import traceback
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import msgspec

from benchmarks.machine import commit
from headrace_worker.local.stack import interruptible_stack
from tests.chaos.check import percentile
from tests.chaos.disk import SkipScenario
from tests.chaos.scenario import run_scenario
from tests.chaos.suite import SCENARIOS

#: The scenarios with kills, and the repetitions of each in a round of about 20 kills.
ROUNDS = {1: 20, 3: 20, 6: 15, 14: 20, 31: 3, 36: 20, 37: 5}
_DEFAULT_KILLS = 10_000
_OUT = Path(__file__).parent / "results" / "rounds.jsonl"


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a round: a line of the file."""

    seed: int
    number: int
    scenario: int
    title: str
    date: str
    commit: str
    seconds: float = 0.0
    kills: int = 0
    confirmed: int = 0
    lost: int = 0
    published_twice: int = 0
    ran_again: int = 0
    #: Seconds from each kill to the last outcome of its victim.
    recovery: list[float] = []
    broken_promises: list[str] = []
    missed_deadlines: list[str] = []
    #: The reason why it did not run here; empty if it ran.
    skipped: str = ""


def choose_round(seed: int, number: int) -> tuple[int, int]:
    """Return the scenario of a round, and the seed of its random choices."""
    rng = random.Random(f"{seed}/{number}")
    return rng.choice(sorted(ROUNDS)), rng.randrange(2**31)


def run_round(seed: int, number: int, repetitions: int | None = None) -> Round:
    """Run a round. `repetitions` of its scenario replace the usual number."""
    scenario_number, scenario_seed = choose_round(seed, number)
    scenario = SCENARIOS[scenario_number]
    scenario = msgspec.structs.replace(scenario, long=repetitions or ROUNDS[scenario_number])
    result = Round(
        seed=seed,
        number=number,
        scenario=scenario_number,
        title=scenario.title,
        date=date.today().isoformat(),
        commit=commit(),
    )
    try:
        outcome = run_scenario(scenario, "headrace", "long", scenario_seed)
    except SkipScenario as reason:
        return msgspec.structs.replace(result, skipped=str(reason))
    except Exception as error:  # noqa: BLE001  # the other rounds run all the same, and this one counts as failed
        traceback.print_exc()
        return msgspec.structs.replace(result, broken_promises=[f"{type(error).__name__}: {error}"])
    check = outcome.check
    return msgspec.structs.replace(
        result,
        seconds=outcome.seconds,
        kills=outcome.kills,
        confirmed=check.confirmed,
        lost=check.lost + check.unfinished,
        published_twice=check.published_twice,
        ran_again=check.ran_again,
        recovery=check.recovery,
        broken_promises=check.broken_promises,
        missed_deadlines=check.missed_deadlines,
    )


def summarise(rounds: Sequence[Round]) -> str:
    """Return the totals of all rounds, and how to repeat those that broke a promise."""
    recovery = [seconds for result in rounds for seconds in result.recovery]
    totals = {
        name: sum(getattr(result, name) for result in rounds)
        for name in ("kills", "confirmed", "lost", "published_twice", "ran_again")
    }
    outcomes = (
        f"{totals['lost']} lost, {totals['published_twice']} published twice, {totals['ran_again']:,} ran again"
    )
    lines = [f"{len(rounds)} rounds, {totals['kills']:,} kills: {totals['confirmed']:,} confirmed, {outcomes}"]
    if recovery:
        p50, p99, longest = (percentile(recovery, percent) for percent in (50, 99, 100))
        lines.append(f"recovery p50 / p99 / max: {p50:.1f} / {p99:.1f} / {longest:.1f} s")
    for result in rounds:
        for description in (*result.broken_promises, *result.missed_deadlines):
            lines.append(f"round {result.number}, scenario {result.scenario}: {description}")
            lines.append(f"  make chaos-long ARGS='--seed {result.seed} --round {result.number}'")
    return "\n".join(lines)


def read_rounds(path: Path, seed: int) -> list[Round]:
    """Return the rounds of a seed in a file. An incomplete last line is ignored."""
    if not path.exists():
        return []
    complete, _, _ = path.read_bytes().rpartition(b"\n")
    rounds = [msgspec.json.decode(line, type=Round) for line in complete.splitlines()]
    return [result for result in rounds if result.seed == seed]


def write_round(path: Path, result: Round) -> None:
    """Append a round to the file; it is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(result) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def describe_round(result: Round) -> str:
    """Return a line for the terminal."""
    if result.skipped:
        return f"skipped: {result.skipped}"
    counts = f"{result.kills} kills, {result.confirmed:,} confirmed, {result.lost} lost"
    problems = "; ".join([*result.broken_promises, *result.missed_deadlines])
    return f"{counts}, {result.published_twice} published twice; {problems or 'all promises kept'}"


def main() -> int:
    """Run rounds. Return 0 if all promises were kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kill_rounds", description=__doc__)
    parser.add_argument("--kills", type=int, default=_DEFAULT_KILLS, help=f"default: {_DEFAULT_KILLS:,}")
    parser.add_argument("--seed", type=int, default=1, help="seed of all rounds; default: 1")
    parser.add_argument("--round", type=int, help="run only this round, and write nothing")
    parser.add_argument("--repetitions", type=int, help="of each round's scenario, for a trial")
    parser.add_argument(
        "--out", type=Path, default=_OUT, help=f"the file of finished rounds; default: {_OUT.name}"
    )
    arguments = parser.parse_args()
    is_single = arguments.round is not None
    rounds = [] if is_single else read_rounds(arguments.out, arguments.seed)
    number = arguments.round if is_single else max((result.number for result in rounds), default=0) + 1
    with interruptible_stack():
        while True:
            scenario, _ = choose_round(arguments.seed, number)
            print(f"seed {arguments.seed}, round {number}, scenario {scenario}: ", end="", flush=True)
            result = run_round(arguments.seed, number, arguments.repetitions)
            print(describe_round(result), flush=True)
            rounds.append(result)
            if is_single:
                break
            write_round(arguments.out, result)
            if sum(result.kills for result in rounds) >= arguments.kills:
                break
            number += 1
    print(summarise(rounds))
    return 1 if any(result.broken_promises or result.missed_deadlines for result in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
