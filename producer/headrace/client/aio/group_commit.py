"""Group commit for asyncio: what callers submit while a call is under way goes with the next call.

    caller ─┐                          ┌─> call ──> Redis
    caller ─┼─> queue of their group ──┤   (under way: the queue grows)
    caller ─┘                          └─> call ──> Redis

There is no timer: a caller alone is sent at once, and the more callers there are, the more jobs a call has.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from redis import exceptions

from headrace.connection.commands import Command
from headrace.connection.errors import is_wrong_type
from headrace.connection.future_deadlines import FutureDeadlines
from headrace.connection.grouped import (
    MAX_CALLS,
    OVERTAKE_SECONDS,
    GroupedCommand,
    join_commands,
    split_reply,
    take_callers,
)

#: The reply to a caller whose command is to be sent alone.
_ALONE = object()


class _Caller:
    """A caller that waits for the reply to its command."""

    __slots__ = ("command", "future")

    def __init__(self, command: GroupedCommand, future: asyncio.Future[Any]) -> None:
        self.command, self.future = command, future


class _Group:
    """The callers of one group that wait, and its tasks."""

    __slots__ = ("is_served", "tasks", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Caller] = deque()
        #: The tasks that send for the group, and whether one of them sends what waits now. The others have been
        #: overtaken: they wait for a reply that does not come.
        self.tasks = 0
        self.is_served = False


class AsyncGroupCommit:
    """Joins the grouped commands of concurrent callers. Belongs to one event loop.

    `send` sends a command and repeats it while that makes sense. A caller that is cancelled, or whose time is up,
    leaves: its command is not sent if it still waits, and the call goes on for the others if it is under way.
    """

    def __init__(self, send: Callable[[Command], Awaitable[Any]]) -> None:
        self._send = send
        self._groups: dict[Hashable, _Group] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines = FutureDeadlines(_expire)

    async def execute(self, command: GroupedCommand, seconds: float) -> Any:
        """Return the reply to a command, in `seconds` at most. Raises RedisError."""
        future = asyncio.get_running_loop().create_future()
        group = self._groups.get(command.group)
        if group is None:
            group = self._groups[command.group] = _Group()
        group.waiting.append(_Caller(command, future))
        self._serve(command.group, group)
        self._deadlines.add(future, seconds)
        try:
            reply = await future
        finally:
            self._deadlines.remove(future)
        return await self._send(command) if reply is _ALONE else reply

    def _serve(self, name: Hashable, group: _Group) -> None:
        """Start a task for what waits in a group, unless one serves it. Callers of the same round go together."""
        if group.is_served or group.tasks >= MAX_CALLS:
            return
        group.is_served = True
        group.tasks += 1
        # The call serves many callers: it has the time limit and the trace of none of them.
        task = asyncio.get_running_loop().create_task(self._drain(name, group), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, name: Hashable, group: _Group) -> None:
        """Send what waits in a group, call by call, until nothing waits or another task serves the group."""
        overtaken = False

        def overtake() -> None:
            nonlocal overtaken
            overtaken, group.is_served = True, False
            if group.waiting:
                self._serve(name, group)

        loop = asyncio.get_running_loop()
        try:
            while batch := take_callers(group.waiting):
                callers = [caller for caller in batch if not caller.future.done()]
                if not callers:
                    continue
                timer = loop.call_later(OVERTAKE_SECONDS, overtake)
                try:
                    await self._commit(callers)
                finally:
                    timer.cancel()
                if overtaken and group.is_served:
                    return
                overtaken, group.is_served = False, True
        finally:
            group.tasks -= 1
            if not overtaken:
                group.is_served = False
            if not group.tasks:
                self._groups.pop(name, None)
                _fail(group.waiting, _closed())

    async def _commit(self, callers: Sequence[_Caller]) -> None:
        commands = [caller.command for caller in callers]
        try:
            reply = await self._send(join_commands(commands))
        except exceptions.RedisError as error:
            if len(callers) > 1 and is_wrong_type(error):
                # It is about a key of one of the callers. The script has changed nothing.
                for caller in callers:
                    _reply(caller, _ALONE)
            else:
                _fail(callers, error)
        except BaseException:
            _fail(callers, _closed())
            raise
        else:
            for caller, results in zip(callers, split_reply(commands, reply), strict=True):
                _reply(caller, results)

    async def close(self, seconds: float) -> None:
        """Wait for the calls under way, `seconds` at most; then their callers get a RedisError."""
        if tasks := list(self._tasks):
            _, unfinished = await asyncio.wait(tasks, timeout=seconds)
            for task in unfinished:
                task.cancel()
            for task in unfinished:
                with suppress(asyncio.CancelledError):
                    await task
        self._deadlines.close()


def _closed() -> exceptions.RedisError:
    return exceptions.ConnectionError("the client was closed")


def _reply(caller: _Caller, reply: Any) -> None:
    if not caller.future.done():
        caller.future.set_result(reply)


def _fail(callers: Iterable[_Caller], error: exceptions.RedisError) -> None:
    """Let each caller have an error of its own: callers add notes, and Python adds tracebacks."""
    for caller in callers:
        if not caller.future.done():
            caller.future.set_exception(copy.copy(error))


def _expire(future: asyncio.Future[Any]) -> None:
    future.set_exception(exceptions.TimeoutError("no reply in time"))
