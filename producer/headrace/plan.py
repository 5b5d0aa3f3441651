"""A decision that needs Redis, written once for threads and for asyncio.

A plan is a generator: it yields the commands it wants answered and returns what it decided. `carry_out`
answers it over a blocking connection, `carry_out_async` over an asynchronous one; nothing else differs
between `Client` and `AsyncClient`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    import redis
    import redis.asyncio

T = TypeVar("T")
Word = str | bytes | int | float


class Command(msgspec.Struct, frozen=True):
    """One command to Redis. `source` is the script an EVALSHA runs, for a server that does not have it yet."""

    words: tuple[Word, ...]
    source: str | None = None

    @property
    def with_source(self) -> tuple[Word, ...]:
        """The command as EVAL: it runs the script and leaves it on the server."""
        return ("EVAL", self.source or "", *self.words[2:])


#: Yields commands, is sent their replies, returns what it decided.
Plan = Generator[Command, Any, T]


class Script:
    """A Lua script. A call of it is one round trip, but for the first to a server that never saw it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], values: Sequence[Word] = ()) -> Command:
        """The command that runs the script."""
        return Command(("EVALSHA", self._sha, len(keys), *keys, *values), self._source)


def ask(redis: redis.Redis, command: Command) -> Any:
    """The reply to one command."""
    from redis.exceptions import NoScriptError

    try:
        return redis.execute_command(*command.words)  # type: ignore[no-untyped-call]  # redis-py gives it no types
    except NoScriptError:
        return redis.execute_command(*command.with_source)  # type: ignore[no-untyped-call]  # as above


def carry_out(redis: redis.Redis, plan: Plan[T]) -> T:
    """What the plan decides. Errors of Redis end the plan and reach the caller."""
    try:
        command = next(plan)
        while True:
            command = plan.send(ask(redis, command))
    except StopIteration as decided:
        result: T = decided.value
        return result


async def carry_out_async(redis: redis.asyncio.Redis, plan: Plan[T]) -> T:
    """`carry_out` over an asynchronous connection."""
    from redis.exceptions import NoScriptError

    try:
        command = next(plan)
        while True:
            try:
                reply = await redis.execute_command(*command.words)  # type: ignore[no-untyped-call]  # as above
            except NoScriptError:
                reply = await redis.execute_command(*command.with_source)  # type: ignore[no-untyped-call]  # as above
            command = plan.send(reply)
    except StopIteration as decided:
        result: T = decided.value
        return result
