"""Kill processes in rounds, until a number of kills is reached: `make chaos-long`.

A round is one scenario with kills. Its number and the seed decide which, and all its random choices, so that each
can be run again: `--seed 7 --round 12`. Each round runs in a process of its own, several at once (`--at-once`),
as most of its time is waiting for leases to expire. When it ends, it writes a line to a file (`--out`). With the
same seed and file, the rounds that are not in it follow.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
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
#: Seconds between two looks whether a round has ended.
_LOOK_SECONDS = 0.5
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


def next_numbers(done: Sequence[Round]) -> Iterator[int]:
    """Yield the numbers of the rounds to run, in order."""
    numbers = {result.number for result in done}
    return (number for number in itertools.count(1) if number not in numbers)


def run_rounds(arguments: argparse.Namespace) -> list[Round]:
    """Run rounds, each in a process of its own, until there are enough kills. Return those of the seed so far."""
    rounds = read_rounds(arguments.out, arguments.seed)
    numbers, running = next_numbers(rounds), list[subprocess.Popen[bytes]]()
    with interruptible_stack() as stack:
        stack.callback(lambda: [process.wait() for process in running])
        while sum(result.kills for result in rounds) < arguments.kills or running:
            if sum(result.kills for result in rounds) < arguments.kills and len(running) < arguments.at_once:
                options = ["--seed", str(arguments.seed), "--out", str(arguments.out), "--append"]
                if arguments.repetitions:
                    options += ["--repetitions", str(arguments.repetitions)]
                command = [sys.executable, "-m", __spec__.name, "--round", str(next(numbers)), *options]
                running.append(subprocess.Popen(command))
            else:
                time.sleep(_LOOK_SECONDS)
            running[:] = [process for process in running if process.poll() is None]
            rounds = read_rounds(arguments.out, arguments.seed)
    return rounds


def main() -> int:
    """Run rounds. Return 0 if all promises were kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kill_rounds", description=__doc__)
    parser.add_argument("--kills", type=int, default=_DEFAULT_KILLS, help=f"default: {_DEFAULT_KILLS:,}")
    parser.add_argument("--at-once", type=int, default=1, help="rounds that run at the same time; default: 1")
    parser.add_argument("--seed", type=int, default=1, help="seed of all rounds; default: 1")
    parser.add_argument("--round", type=int, help="run only this round")
    parser.add_argument("--append", action="store_true", help="write the line of the only round, too")
    parser.add_argument("--repetitions", type=int, help="of each round's scenario, for a trial")
    parser.add_argument(
        "--out", type=Path, default=_OUT, help=f"the file of finished rounds; default: {_OUT.name}"
    )
    arguments = parser.parse_args()
    if arguments.round is None:
        rounds = run_rounds(arguments)
        print(summarise(rounds))
    else:
        with interruptible_stack():
            rounds = [run_round(arguments.seed, arguments.round, arguments.repetitions)]
        if arguments.append:
            write_round(arguments.out, rounds[0])
        title = f"seed {arguments.seed}, round {arguments.round}, scenario {rounds[0].scenario}"
        print(f"{title}: {describe_round(rounds[0])}", flush=True)
    return 1 if any(result.broken_promises or result.missed_deadlines for result in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
