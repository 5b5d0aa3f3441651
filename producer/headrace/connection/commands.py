"""Commands to Redis, and operations: a decision that needs Redis, written once for threads and for asyncio.

An operation is a generator. It yields commands, is sent their replies, and returns its result. `run` executes it
over a blocking connection, `run_async` over an asynchronous one. An error of Redis is raised in the operation,
where it yielded the command.

A script is called as a function where an administrator has loaded it, else by EVALSHA (`script_calls`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import msgspec

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from headrace.connection.script_calls import Form, ScriptCall

T = TypeVar("T")
Argument = str | bytes | int | float


class Command(msgspec.Struct, frozen=True):
    """A command to Redis. With a `script`, it is the FCALL of its function, and `in_form` returns other forms."""

    args: tuple[Argument, ...]
    script: Script | None = None

    def pack(self, form: Form) -> bytes:
        """Return the bytes of the command, as they are sent; those of a script's call in a form."""
        from hiredis import pack_command

        args: Any = self.args if self.script is None else self.in_form(form)
        packed: bytes = pack_command(args)
        return packed

    def in_form(self, form: Form) -> tuple[Argument, ...]:
        """Return the call of the script in a form."""
        match form.value:
            case "FCALL":
                return self.args
            case "EVALSHA":
                return ("EVALSHA", self._script.digest, *self.args[2:])
            case _:
                return self.with_source

    @property
    def with_source(self) -> tuple[Argument, ...]:
        """The command as EVAL, which runs the script and loads it into the server."""
        return ("EVAL", self._script.source, *self.args[2:])

    @property
    def _script(self) -> Script:
        assert self.script is not None  # noqa: S101  # a command without a script has no forms
        return self.script


class Pipeline(msgspec.Struct, frozen=True):
    """Commands sent together over one connection. The reply is the list of replies; an error is in its place.

    If the server refuses the form of a script, the script and all commands behind it are sent again. So only
    commands that may be repeated stand behind a script of another name.
    """

    commands: tuple[tuple[Argument, ...] | Command, ...]
    #: True if Redis waits before it replies, as for WAIT.
    blocks: bool = False

    def args_from(self, first: int, form: Form) -> list[tuple[Argument, ...]]:
        """Return the commands from number `first` on, with the scripts in this form."""
        return [
            command if isinstance(command, tuple) else command.in_form(form) if command.script else command.args
            for command in self.commands[first:]
        ]


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
    """A Lua script with KEYS and ARGV, which Redis runs as a function or by EVAL.

    `name` is part of the name of its function, beside a digest: workers of two releases run side by side.
    `flag` is Redis's: `no-writes` for a script that only reads, `allow-oom` for a script that a full Redis must
    run, as it frees memory or ends work. A full Redis refuses a script without a flag before it starts.
    """

    #: All scripts of the modules that are imported.
    every: ClassVar[dict[str, Script]] = {}

    def __init__(self, name: str, source: str, *, flag: Literal["no-writes", "allow-oom"] | None = None) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._flags = f"'{flag}'" if flag else ""
        version = hashlib.sha1(f"{self._flags}\n{source}".encode(), usedforsecurity=False).hexdigest()
        #: The name of the function, and of its library.
        self.function = f"headrace_{name}_{version[:12]}"
        self.every[self.function] = self

    @property
    def library(self) -> str:
        """The library of the function, for FUNCTION LOAD. It holds nothing else."""
        return (
            f"#!lua name={self.function}\n"
            f"redis.register_function{{function_name='{self.function}', flags={{{self._flags}}}, "
            f"callback=function(KEYS, ARGV)\n{self.source}\nend}}\n"
        )

    def __call__(self, keys: Sequence[str], values: Sequence[Argument] = ()) -> Command:
        """Return the command that runs the script with these KEYS and ARGV."""
        return Command(("FCALL", self.function, len(keys), *keys, *values), self)


def execute(redis: redis.Redis, command: Command | Pipeline) -> Any:
    """Send a command or a pipeline and return the reply."""
    if isinstance(command, Pipeline):
        return _execute_pipeline(redis, command)
    if command.script is None:
        return redis.execute_command(*command.args)  # type: ignore[no-untyped-call]  # redis-py has no type for it
    from headrace.connection.script_calls import ScriptCall

    call = ScriptCall(redis.connection_pool)
    while True:
        try:
            reply = redis.execute_command(*command.in_form(call.form))  # type: ignore[no-untyped-call]  # as above
        except call.refusals as error:
            if (refusal := call.refused(error, command.script.function)) is not None:
                raise refusal from None
        else:
            call.succeeded()
            return reply


def _execute_pipeline(redis: redis.Redis, pipeline: Pipeline) -> list[Any]:
    from headrace.connection.script_calls import ScriptCall

    call, replies = ScriptCall(redis.connection_pool), list[Any]()
    while len(replies) < len(pipeline.commands):
        with redis.pipeline(transaction=False) as sender:
            for args in pipeline.args_from(len(replies), call.form):
                sender.execute_command(*args)  # type: ignore[no-untyped-call]  # as above
            _add_replies(replies, sender.execute(raise_on_error=False), pipeline, call)
    return replies


def _add_replies(replies: list[Any], received: Sequence[Any], pipeline: Pipeline, call: ScriptCall) -> None:
    """Add received replies up to the first refused form of a script, which is to be sent again."""
    from redis.exceptions import RedisError

    for reply in received:
        command = pipeline.commands[len(replies)]
        result = reply
        if isinstance(command, Command) and command.script is not None:
            if isinstance(reply, RedisError):
                result = call.refused(reply, command.script.function)
                if result is None:
                    return
            else:
                call.succeeded()
        replies.append(result)


async def execute_async(redis: redis.asyncio.Redis, command: Command | Pipeline) -> Any:
    """Send a command or a pipeline over an asynchronous connection and return the reply."""
    if isinstance(command, Pipeline):
        return await _execute_pipeline_async(redis, command)
    if command.script is None:
        return await redis.execute_command(*command.args)  # type: ignore[no-untyped-call]  # as above
    from headrace.connection.script_calls import ScriptCall

    call = ScriptCall(redis.connection_pool)
    while True:
        try:
            reply = await redis.execute_command(*command.in_form(call.form))  # type: ignore[no-untyped-call]  # as above
        except call.refusals as error:
            if (refusal := call.refused(error, command.script.function)) is not None:
                raise refusal from None
        else:
            call.succeeded()
            return reply


async def _execute_pipeline_async(redis: redis.asyncio.Redis, pipeline: Pipeline) -> list[Any]:
    from headrace.connection.script_calls import ScriptCall

    call, replies = ScriptCall(redis.connection_pool), list[Any]()
    while len(replies) < len(pipeline.commands):
        async with redis.pipeline(transaction=False) as sender:
            for args in pipeline.args_from(len(replies), call.form):
                sender.execute_command(*args)
            _add_replies(replies, await sender.execute(raise_on_error=False), pipeline, call)
    return replies


def run(send: Callable[[Request], Any], operation: Generator[Request, Any, T]) -> T:
    """Run an operation and return its result. `send` returns the reply to a request.

    Raises redis.RedisError if the operation does not handle it.
    """
    try:
        request = next(operation)
        while True:
            try:
                reply = send(request)
            except Exception as error:
                if not _is_redis_error(error):
                    raise
                request = operation.throw(error)
            else:
                request = operation.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def run_async(send: Callable[[Request], Awaitable[Any]], operation: Generator[Request, Any, T]) -> T:
    """Run an operation as `run`, with a `send` that returns an awaitable of the reply."""
    try:
        request = next(operation)
        while True:
            try:
                reply = await send(request)
            except Exception as error:
                if not _is_redis_error(error):
                    raise
                request = operation.throw(error)
            else:
                request = operation.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _is_redis_error(error: Exception) -> bool:
    from redis.exceptions import RedisError

    return isinstance(error, RedisError)
