"""A seed and a number decide a round of kills, and its result says how to repeat a failure."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from tests.chaos.kill_rounds import (
    ROUNDS,
    Round,
    choose_round,
    next_numbers,
    read_rounds,
    summarise,
    write_round,
)
from tests.chaos.suite import SCENARIOS


def finished(number: int, *, seed: int = 7, **fields: object) -> Round:
    """Return the result of a round."""
    identity = {"seed": seed, "number": number, "scenario": 1, "title": "workers killed"}
    return Round(**(identity | {"date": "2026-11-30", "commit": "abc"} | fields))  # type: ignore[arg-type]


def test_a_seed_and_a_number_decide_a_round() -> None:
    chosen = [choose_round(7, number) for number in range(1, 60)]
    assert chosen == [choose_round(7, number) for number in range(1, 60)]
    assert {scenario for scenario, _ in chosen} == set(ROUNDS)
    assert ROUNDS.keys() <= SCENARIOS.keys()
    assert chosen != [choose_round(8, number) for number in range(1, 60)]


def test_the_rounds_of_a_seed_are_read_back_without_an_incomplete_line(tmp_path: Path) -> None:
    file = tmp_path / "results" / "rounds.jsonl"
    for result in (finished(1, kills=20), finished(1, seed=8), finished(2, recovery=[1.5])):
        write_round(file, result)
    with file.open("ab") as unfinished:
        unfinished.write(b'{"seed": 7, "number"')
    assert [result.number for result in read_rounds(file, 7)] == [1, 2]
    assert read_rounds(tmp_path / "missing", 7) == []


def test_rounds_that_were_interrupted_run_before_new_ones() -> None:
    assert list(islice(next_numbers([finished(1), finished(3)]), 3)) == [2, 4, 5]


def test_the_summary_adds_up_the_rounds_and_names_the_command_that_repeats_a_failure() -> None:
    summary = summarise(
        [
            finished(1, kills=20, confirmed=1000, ran_again=4, recovery=[10.5, 11.0]),
            finished(2, kills=15, confirmed=500, lost=1, recovery=[10.1], broken_promises=["lost: 1 (job-4)"]),
        ]
    )
    assert summary.splitlines() == [
        "2 rounds, 35 kills: 1,500 confirmed, 1 lost, 0 published twice, 4 ran again",
        "recovery p50 / p99 / max: 10.5 / 11.0 / 11.0 s",
        "round 2, scenario 1: lost: 1 (job-4)",
        "  make chaos-long ARGS='--seed 7 --round 2'",
    ]
