"""Commands to Redis, and operations: a decision that needs Redis, written once for threads and for asyncio.

An operation is a generator. It yields commands, is sent their replies, and returns its result. `run` executes it
over a blocking connection, `run_async` over an asynchronous one. An error of Redis is raised in the operation,
where it yielded the command.
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
    """A command to Redis. `source` is the script of an EVALSHA, in case the server does not have it yet."""

    args: tuple[Argument, ...]
    source: str | None = None

    @property
    def with_source(self) -> tuple[Argument, ...]:
        """The command as EVAL, which runs the script and loads it into the server."""
        return ("EVAL", self.source or "", *self.args[2:])


class Pipeline(msgspec.Struct, frozen=True):
    """Commands sent together over one connection. The reply is the list of replies; an error is in its place."""

    commands: tuple[tuple[Argument, ...], ...]


class Pipelined(msgspec.Struct, frozen=True):
    """A command that is sent while the operation goes on. The reply is a PendingReply, to be yielded later."""

    command: Command


class PendingReply(ABC):
    """The reply to a command that was sent and not read yet. Yield it once, or drop it."""

    command: Command

    @abstractmethod
    def reply(self) -> Any:
        """Return the reply, or an awaitable of it."""

    @abstractmethod
    def drop(self) -> None:
        """Give up the reply. Redis may have run the command."""


#: Yields commands, is sent their replies, and returns a result.
Operation = Generator[Command | Pipeline, Any, T]
#: An operation that also sends commands ahead of reading their replies. A client's session runs it.
PipelinedOperation = Generator[Command | Pipeline | Pipelined | PendingReply, Any, T]
#: What an operation yields.
Request = TypeVar("Request")


class Script:
    """A Lua script. A call is one round trip; the first call on a server that lacks the script is two."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], values: Sequence[Argument] = ()) -> Command:
        """Return the command that runs the script with these KEYS and ARGV."""
        return Command(("EVALSHA", self._sha, len(keys), *keys, *values), self._source)


def execute(redis: redis.Redis, command: Command | Pipeline) -> Any:
    """Send a command or a pipeline and return the reply."""
    from redis.exceptions import NoScriptError

    if isinstance(command, Pipeline):
        with redis.pipeline(transaction=False) as pipeline:
            for args in command.commands:
                pipeline.execute_command(*args)  # type: ignore[no-untyped-call]  # redis-py has no type for it
            return pipeline.execute(raise_on_error=False)
    try:
        return redis.execute_command(*command.args)  # type: ignore[no-untyped-call]  # as above
    except NoScriptError:
        return redis.execute_command(*command.with_source)  # type: ignore[no-untyped-call]  # as above


async def execute_async(redis: redis.asyncio.Redis, command: Command | Pipeline) -> Any:
    """Send a command or a pipeline over an asynchronous connection and return the reply."""
    from redis.exceptions import NoScriptError

    if isinstance(command, Pipeline):
        async with redis.pipeline(transaction=False) as pipeline:
            for args in command.commands:
                pipeline.execute_command(*args)
            return await pipeline.execute(raise_on_error=False)
    try:
        return await redis.execute_command(*command.args)  # type: ignore[no-untyped-call]  # as above
    except NoScriptError:
        return await redis.execute_command(*command.with_source)  # type: ignore[no-untyped-call]  # as above


def run(send: Callable[[Request], Any], operation: Generator[Request, Any, T]) -> T:
    """Run an operation and return its result. `send` returns the reply to a request.

    Raises redis.RedisError if the operation does not handle it.
    """
    from redis.exceptions import RedisError

    try:
        request = next(operation)
        while True:
            try:
                reply = send(request)
            except RedisError as error:
                request = operation.throw(error)
            else:
                request = operation.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def run_async(send: Callable[[Request], Awaitable[Any]], operation: Generator[Request, Any, T]) -> T:
    """Run an operation as `run`, with a `send` that returns an awaitable of the reply."""
    from redis.exceptions import RedisError

    try:
        request = next(operation)
        while True:
            try:
                reply = await send(request)
            except RedisError as error:
                request = operation.throw(error)
            else:
                request = operation.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result
