"""Script calls of several callers that Redis runs as one call.

A grouped command calls a script about items, such as the jobs of one caller, and its reply is a list with one
element for each item. Commands of one group share all keys and values but those of their items, so they join
into one call, and each caller gets its part of the reply.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from headrace.connection.commands import Argument, Command
from headrace.connection.packed_call import PackedCall
from headrace.connection.script_calls import Form

#: Most items and bytes of values in a joined call: it should hold Redis for about a millisecond.
MAX_ITEMS = 250
MAX_BYTES = 1024 * 1024
#: Seconds after which callers no longer wait for the call under way: its connection may be broken unnoticed.
OVERTAKE_SECONDS = 0.1
#: Most calls of one group under way at the same time.
MAX_CALLS = 4


class GroupedCommand(Command, frozen=True, kw_only=True):
    """A call of a script that may be joined with others of its group."""

    #: Equal for commands that may be joined. Hashable.
    group: Hashable
    #: The items, and the bytes of their values.
    items: int
    size: int
    #: How many keys and values, ahead of those of the items, the commands of a group share.
    shared_keys: int
    shared_values: int
    #: Packs the call of a single item; None: it is packed as any command.
    packed_call: PackedCall | None = None

    def pack(self, form: Form) -> bytes:
        """Return the bytes of the call in a form, as they are sent."""
        if self.packed_call is None:
            return Command.pack(self, form)
        args: Any = self.args
        return self.packed_call.pack(form, args[2 + int(args[2])], args[-2], args[-1])


class Caller(Protocol):
    """A caller with its command."""

    command: GroupedCommand


AnyCaller = TypeVar("AnyCaller", bound=Caller)


def take_callers(waiting: deque[AnyCaller]) -> list[AnyCaller]:
    """Remove those callers from the head of a queue whose commands fit into one call, and return them."""
    callers: list[AnyCaller] = []
    items = size = 0
    while waiting:
        command = waiting[0].command
        items, size = items + command.items, size + command.size
        if callers and (items > MAX_ITEMS or size > MAX_BYTES):
            break
        callers.append(waiting.popleft())
    return callers


def join_commands(commands: Sequence[GroupedCommand]) -> Command:
    """Return one command in place of commands of one group."""
    first = commands[0]
    if len(commands) == 1 or first.script is None:
        return first
    behind_keys = _behind_keys(first)
    keys: list[Any] = list(first.args[3 : 3 + first.shared_keys])
    values: list[Argument] = list(first.args[behind_keys : behind_keys + first.shared_values])
    for command in commands:
        behind_keys = _behind_keys(command)
        keys += command.args[3 + command.shared_keys : behind_keys]
        values += command.args[behind_keys + command.shared_values :]
    return first.script(keys, values)


def _behind_keys(command: Command) -> int:
    """Return the index of the first value behind the keys: FCALL, function, number of keys, keys, values."""
    return 3 + int(command.args[2])


def split_reply(commands: Iterable[GroupedCommand], reply: Sequence[Any]) -> list[Sequence[Any]]:
    """Return the part of a joined call's reply that belongs to each command."""
    parts: list[Sequence[Any]] = []
    first = 0
    for command in commands:
        parts.append(reply[first : first + command.items])
        first += command.items
    return parts
