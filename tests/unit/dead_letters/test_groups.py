"""Tests of grouping letters whose messages differ only in numbers and ids."""

from __future__ import annotations

import inspect
import tracemalloc

import pytest

from headrace.client import AsyncDeadLetters, DeadLetters
from headrace.dead_letters import groups
from headrace.dead_letters.groups import DeadLetterGroups, normalise_message
from headrace.testing.dead_letters import InMemoryDeadLetters
from tests.support.stored_dead_letters import make_letter


@pytest.mark.parametrize(
    ("message", "normalised"),
    [
        ("the model cannot", "the model cannot"),
        ("row 12 of 1,024", "row # of #,#"),
        ("took 1.5e-3 s, at 0x7f3a00c41d50", "took # s, at #"),
        ("job 6f0c2c1e-8f0e-4b8e-9a53-1f1f64c2b7aa failed", "job # failed"),
        ("effaced facade decade", "effaced facade decade"),
        ("feature x12 and x7", "feature x# and x#"),
        ("sha256 deadbeef00112233 differs", "sha# # differs"),
        ("", ""),
    ],
)
def test_numbers_and_ids_are_replaced(message: str, normalised: str):
    assert normalise_message(make_letter(message=message)) == normalised


def test_long_messages_are_compared_by_their_beginning():
    assert normalise_message(make_letter(message="x" * 400 + "1")) == normalise_message(
        make_letter(message="x" * 400 + "y")
    )


def test_a_message_crafted_for_a_slow_match_is_not_slow():
    normalise_message(make_letter(message="a-" * 150))
    normalise_message(make_letter(message="0x" * 150))
    normalise_message(make_letter(message="1." * 150 + "e"))


def test_the_largest_group_comes_first_and_among_equals_the_newest():
    letter_groups = DeadLetterGroups()
    letter_groups.add(
        make_letter(str(number), message=message, died_ms=number) for number, message in enumerate("abcba")
    )
    assert [(group.message, group.count, group.example) for group in letter_groups.largest()] == [
        ("a", 2, "4"),
        ("b", 2, "3"),
        ("c", 1, "2"),
    ]


def test_the_example_is_the_newest_letter_in_any_order():
    letter_groups = DeadLetterGroups()
    letter_groups.add(make_letter(str(died_ms), died_ms=died_ms) for died_ms in (5, 9, 7))
    (group,) = letter_groups.largest()
    assert (group.example, group.oldest_ms, group.newest_ms) == ("9", 5, 9)


def test_any_number_of_groups_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "_MAX_GROUPS", 100)
    letter_groups = DeadLetterGroups()
    digits_to_letters = str.maketrans("0123456789", "abcdefghij")
    tracemalloc.start()
    try:
        letter_groups.add(
            make_letter(str(number), message=str(number).translate(digits_to_letters)) for number in range(20_000)
        )
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(letter_groups.largest()) == 101
    assert letter_groups.largest()[0].message == ""
    assert sum(group.count for group in letter_groups.largest()) == 20_000
    assert used_bytes < 1_000_000


@pytest.mark.parametrize("implementation", [AsyncDeadLetters, InMemoryDeadLetters])
def test_every_implementation_of_dead_letters_has_the_same_methods(implementation: type):
    for name, method in inspect.getmembers(DeadLetters, inspect.isfunction):
        if not name.startswith("_"):
            assert (
                inspect.signature(getattr(implementation, name)).parameters == inspect.signature(method).parameters
            )
