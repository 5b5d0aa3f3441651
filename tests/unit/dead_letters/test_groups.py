"""Letters that differ in numbers and ids at most are one storm."""

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
    ("says", "compared"),
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
def test_numbers_and_ids_are_struck(says: str, compared: str):
    assert normalise_message(make_letter(message=says)) == compared


def test_long_messages_are_compared_by_their_beginning():
    assert normalise_message(make_letter(message="x" * 400 + "1")) == normalise_message(
        make_letter(message="x" * 400 + "y")
    )


def test_a_message_made_to_be_slow_is_not():
    normalise_message(make_letter(message="a-" * 150))
    normalise_message(make_letter(message="0x" * 150))
    normalise_message(make_letter(message="1." * 150 + "e"))


def test_the_largest_storm_comes_first_and_of_equals_the_newest():
    found = DeadLetterGroups()
    found.add(make_letter(str(number), message=says, died_ms=number) for number, says in enumerate("abcba"))
    assert [(one.message, one.count, one.example) for one in found.largest()] == [
        ("a", 2, "4"),
        ("b", 2, "3"),
        ("c", 1, "2"),
    ]


def test_the_example_is_the_newest_whatever_their_order():
    found = DeadLetterGroups()
    found.add(make_letter(str(died), died_ms=died) for died in (5, 9, 7))
    (storm,) = found.largest()
    assert (storm.example, storm.oldest_ms, storm.newest_ms) == ("9", 5, 9)


def test_storms_without_end_take_memory_with_an_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "_MAX_GROUPS", 100)
    found = DeadLetterGroups()
    words = str.maketrans("0123456789", "abcdefghij")
    tracemalloc.start()
    try:
        found.add(make_letter(str(number), message=str(number).translate(words)) for number in range(20_000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.largest()) == 101
    assert found.largest()[0].message == ""
    assert sum(one.count for one in found.largest()) == 20_000
    assert held < 1_000_000


@pytest.mark.parametrize("other", [AsyncDeadLetters, InMemoryDeadLetters])
def test_every_face_of_dead_letters_has_the_same_methods(other: type):
    for name, method in inspect.getmembers(DeadLetters, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(other, name)).parameters == inspect.signature(method).parameters
