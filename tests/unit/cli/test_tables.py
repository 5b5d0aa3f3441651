"""Tables fit the width of a terminal, without cutting a word; elsewhere nothing is left out."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.bulk import make_run
from headrace.bulk.progress import RunFailures
from headrace.cli.bulk_format import format_failures, format_runs
from headrace.cli.dead_letter_format import format_groups
from headrace.cli.tables import format_table
from headrace.dead_letters.groups import DeadLetterGroup
from headrace.text import format_age
from headrace.wire.bulk import RunProgress

NOW_MS = 1_800_000_000_000
MESSAGE = "the column 'plan' of the instance has a value that is in none of the categories of the contract"
GROUP = DeadLetterGroup(
    model="churn",
    version="3",
    reason="attempts exhausted",
    error="ConnectionResetError",
    message=MESSAGE,
    count=12_345,
    oldest_ms=NOW_MS - 3 * 86_400_000,
    newest_ms=NOW_MS - 180_000,
    example="01a22d87-d047-79f7-b02d-74f894c64092",
)


def words(lines: list[str]) -> set[str]:
    return {word for line in lines for word in line.split()}


def assert_fits(narrow: list[str], whole: list[str], width: int) -> None:
    """Check that the lines are as wide as the terminal at most, and that each of their words is a whole one."""
    assert max(map(len, narrow)) <= width
    assert len(narrow) == len(whole)
    assert words(narrow) <= words(whole) | {"..."}


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_table_of_dead_letters_fits(width: int):
    assert_fits(format_groups([GROUP], NOW_MS, width=width), format_groups([GROUP], NOW_MS), width)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_table_of_bulk_runs_fits(width: int):
    run = RunProgress(
        run=make_run("customer-churn", "in:rows", "out:scores", name="nightly-2026-11-29", version="12"),
        state="finishing",
        submitted_ms=NOW_MS - 7_200_000,
        started_ms=NOW_MS - 7_100_000,
        rows=1_000_000_000,
        rows_done=470_000_000,
        rows_failed=1_234_567,
    )
    assert_fits(format_runs([run], NOW_MS, width=width), format_runs([run], NOW_MS), width)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_table_of_failed_rows_fits(width: int):
    failures = RunFailures(reasons={MESSAGE * 2: 1_000_000}, chunks=())
    assert_fits(list(format_failures(failures, width=width)), list(format_failures(failures)), width)


def test_ages_stand_in_place_of_moments():
    row = format_groups([GROUP], NOW_MS)[1]
    assert "  3 d  " in row
    assert "  3 m  " in row
    assert row.endswith(MESSAGE)


ROWS = [("NAME", "SIZE", "TEXT"), ("a-long-name", "1,000", "one two three four five six")]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (None, ["NAME          SIZE  TEXT", "a-long-name  1,000  one two three four five six"]),
        (46, ["NAME          SIZE  TEXT", "a-long-name  1,000  one two three four ..."]),
        (40, ["NAME         TEXT", "a-long-name  one two three four five six"]),
        (30, ["NAME         TEXT", "a-long-name  one two three ..."]),
        (5, ["NAME         TEXT", "a-long-name  one ..."]),
    ],
)
def test_a_text_is_shortened_before_a_column_is_left_out_and_a_word_is_never_cut(
    width: int | None, lines: list[str]
):
    assert format_table(ROWS, right={1}, drops={1: 1}, texts={2}, width=width) == lines


def test_the_column_with_the_greatest_order_is_left_out_first():
    rows: Any = [("A", "BB", "CC"), ("1", "22", "33")]
    assert format_table(rows, drops={1: 2, 2: 1}, width=6) == ["A  CC", "1  33"]
    assert format_table(rows, drops={1: 1, 2: 2}, width=6) == ["A  BB", "1  22"]
    assert format_table(rows, drops={1: 1, 2: 2}, width=3) == ["A", "1"]


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(-5, "0 s"), (0.4, "0 s"), (59.9, "59 s"), (60, "1 m"), (3_599, "59 m"), (7_200, "2 h"), (86_400, "1 d")],
)
def test_an_age_has_one_unit(seconds: float, age: str):
    assert format_age(seconds) == age
