"""A decision that needs Redis, written once for threads and for asyncio.

A plan is a generator: it yields the commands it wants answered and returns what it decided. `carry_out`
answers it over a blocking connection, `carry_out_async` over an asynchronous one; nothing else differs
between `Client` and `AsyncClient`. An error of Redis is raised in the plan, where the command was yielded.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    import redis
    import redis.asyncio

T = TypeVar("T")
Argument = str | bytes | int | float


class Command(msgspec.Struct, frozen=True):
    """One command to Redis. `source` is the script an EVALSHA runs, for a server that does not have it yet."""

    args: tuple[Argument, ...]
    source: str | None = None

    @property
    def with_source(self) -> tuple[Argument, ...]:
        """The command as EVAL: it runs the script and leaves it on the server."""
        return ("EVAL", self.source or "", *self.args[2:])


class Pipeline(msgspec.Struct, frozen=True):
    """Commands that go over one connection, in this order. The reply is a list; an error in it was a refusal."""

    commands: tuple[tuple[Argument, ...], ...]


class Pipelined(msgspec.Struct, frozen=True):
    """A command that is sent while the plan goes on. The reply is `Sent`; the reply to that is the command's."""

    command: Command


class PendingReply(ABC):
    """A command whose reply has not been read. To be yielded once, or dropped."""

    command: Command

    @abstractmethod
    def reply(self) -> Any:
        """The reply, or what to await for it."""

    @abstractmethod
    def drop(self) -> None:
        """Do without the reply. The command may have been carried out."""


#: Yields commands, is sent their replies, returns what it decided.
Operation = Generator[Command | Pipeline, Any, T]
#: One that sends commands early, too: a client's link carries it out.
PipelinedOperation = Generator[Command | Pipeline | Pipelined | PendingReply, Any, T]
#: What a plan yields.
Request = TypeVar("Request")


class Script:
    """A Lua script. A call of it is one round trip, but for the first to a server that never saw it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], values: Sequence[Argument] = ()) -> Command:
        """The command that runs the script."""
        return Command(("EVALSHA", self._sha, len(keys), *keys, *values), self._source)


def execute(redis: redis.Redis, command: Command | Pipeline) -> Any:
    """The reply to a command, or those to several."""
    from redis.exceptions import NoScriptError

    if isinstance(command, Pipeline):
        with redis.pipeline(transaction=False) as pipeline:
            for words in command.commands:
                pipeline.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py gives it no types
            return pipeline.execute(raise_on_error=False)
    try:
        return redis.execute_command(*command.args)  # type: ignore[no-untyped-call]  # as above
    except NoScriptError:
        return redis.execute_command(*command.with_source)  # type: ignore[no-untyped-call]  # as above


async def execute_async(redis: redis.asyncio.Redis, command: Command | Pipeline) -> Any:
    """`ask` over an asynchronous connection."""
    from redis.exceptions import NoScriptError

    if isinstance(command, Pipeline):
        async with redis.pipeline(transaction=False) as pipeline:
            for words in command.commands:
                pipeline.execute_command(*words)
            return await pipeline.execute(raise_on_error=False)
    try:
        return await redis.execute_command(*command.args)  # type: ignore[no-untyped-call]  # as above
    except NoScriptError:
        return await redis.execute_command(*command.with_source)  # type: ignore[no-untyped-call]  # as above


def run(send: Callable[[Request], Any], operation: Generator[Request, Any, T]) -> T:
    """What the plan decides. Errors of Redis that the plan does not catch reach the caller."""
    from redis.exceptions import RedisError

    try:
        command = next(operation)
        while True:
            try:
                reply = send(command)
            except RedisError as error:
                command = operation.throw(error)
            else:
                command = operation.send(reply)
    except StopIteration as decided:
        result: T = decided.value
        return result


async def run_async(send: Callable[[Request], Awaitable[Any]], operation: Generator[Request, Any, T]) -> T:
    """`carry_out`, where to ask is to await."""
    from redis.exceptions import RedisError

    try:
        command = next(operation)
        while True:
            try:
                reply = await send(command)
            except RedisError as error:
                command = operation.throw(error)
            else:
                command = operation.send(reply)
    except StopIteration as decided:
        result: T = decided.value
        return result
