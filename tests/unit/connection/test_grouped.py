"""Commands of one group join into one call, and each gets its part of the reply."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from headrace.connection.grouped import (
    MAX_BYTES,
    MAX_ITEMS,
    GroupedCommand,
    join_commands,
    split_reply,
    take_callers,
)
from headrace.submit.enqueue import ENQUEUE


class Caller(NamedTuple):
    command: GroupedCommand


def command(*items: str, size: int = 10) -> GroupedCommand:
    """Return a command with one key and two values for each item, behind two shared keys and one shared value."""
    values = [value for item in items for value in (f"record {item}", f"message {item}")]
    call = ENQUEUE(["list", "delayed", *(f"key {item}" for item in items)], ["limit", *values])
    return GroupedCommand(
        call.args, ENQUEUE, group=("g",), items=len(items), size=size, shared_keys=2, shared_values=1
    )


def test_joined_commands_are_the_command_of_all_items():
    joined = join_commands([command("a"), command("b", "c"), command("d")])
    assert joined.args == command("a", "b", "c", "d").args
    assert joined.script is ENQUEUE


def test_a_command_alone_stays_as_it_is():
    alone = command("a")
    assert join_commands([alone]) is alone


def test_each_command_has_its_part_of_the_reply():
    commands = [command("a"), command("b", "c"), command("d")]
    assert split_reply(commands, [0, 1, 2, 3]) == [[0], [1, 2], [3]]


def test_callers_are_taken_in_order_up_to_the_most_items():
    waiting = deque(Caller(command(str(number))) for number in range(MAX_ITEMS + 2))
    expected = list(waiting)
    assert take_callers(waiting) == expected[:MAX_ITEMS]
    assert take_callers(waiting) == expected[MAX_ITEMS:]
    assert take_callers(waiting) == []


def test_callers_are_taken_up_to_the_most_bytes_and_one_at_least():
    waiting = deque(Caller(command(str(number), size=size)) for number, size in enumerate((MAX_BYTES * 2, 9, 9)))
    assert [len(take_callers(waiting)) for _ in range(2)] == [1, 2]
