"""Group commit for threads: what threads submit while a call is under way goes with the next call.

No thread is started. A thread whose group has no call under way sends its command directly, and then lets the
first thread that came meanwhile lead, which sends all that waits. See `headrace.client.aio.group_commit`.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from redis import exceptions

from headrace.connection.call_limit import limit_call
from headrace.connection.commands import Command
from headrace.connection.errors import is_wrong_type
from headrace.connection.grouped import (
    MAX_CALLS,
    OVERTAKE_SECONDS,
    GroupedCommand,
    join_commands,
    split_reply,
    take_callers,
)

#: The leader of a group whose first thread sends its command alone.
_ALONE = object()


class _Caller:
    """A thread with its command. It waits for the reply, or for its turn to lead."""

    __slots__ = ("command", "error", "leads", "reply", "wakes")

    def __init__(self, command: GroupedCommand) -> None:
        self.command = command
        #: Released once, when there is a reply, an error, or the turn to lead.
        self.wakes = threading.Lock()
        self.wakes.acquire()
        self.leads = False
        #: Both None: the command is to be sent alone.
        self.reply: Sequence[Any] | None = None
        self.error: exceptions.RedisError | None = None


class _Group:
    """The threads of one group that wait, and those that lead."""

    __slots__ = ("leader", "leaders", "waiting")

    def __init__(self, leader: object) -> None:
        self.waiting: deque[_Caller] = deque()
        #: The thread that lets another lead when its call is done. Other leaders have been overtaken.
        self.leader: object | None = leader
        self.leaders = 1


class GroupCommit:
    """Joins the grouped commands of concurrent threads. Safe for threads, and after fork.

    `send` sends a command, and repeats it while that makes sense and the current call has time left.
    """

    def __init__(self, send: Callable[[Command], Any]) -> None:
        self._send = send
        self._start_over()

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._groups: dict[Hashable, _Group] = {}

    def execute(self, command: GroupedCommand, seconds: float) -> Any:
        """Return the reply to a command, in `seconds` at most. Raises RedisError."""
        if self._pid != os.getpid():  # the threads that lead are the parent's
            self._start_over()
        name, group = command.group, None
        try:
            with self._lock:
                if name not in self._groups:
                    group = self._groups[name] = _Group(_ALONE)
            if group is not None:
                return self._send(command)
        finally:  # also for a thread that was interrupted
            if group is not None:
                with self._lock:
                    self._pass_on(group, _ALONE, name)
        return self._join(command, time.monotonic() + seconds)

    def _join(self, command: GroupedCommand, end: float) -> Any:
        """Wait for the reply, or for the turn to lead, until `end`. Raises RedisError."""
        caller = _Caller(command)
        with self._lock:
            group = self._groups.get(command.group)
            if group is None:
                group = self._groups[command.group] = _Group(caller)
                caller.leads = True
            else:
                caller.leads = self._may_lead(group, caller)
            if not caller.leads:
                group.waiting.append(caller)
        if not caller.leads:
            self._follow(group, caller, end)
        with limit_call(end - time.monotonic()):
            if caller.leads:
                return self._lead(group, caller)
            if caller.reply is not None:
                return caller.reply
            if caller.error is not None and time.monotonic() >= end:
                raise caller.error
            return self._send(command)

    def _may_lead(self, group: _Group, caller: _Caller, *, overtakes: bool = False) -> bool:
        """Let a thread lead if no other does, or if it has waited too long. The lock is held."""
        if group.leaders >= MAX_CALLS or not (group.leader is None or overtakes):
            return False
        group.leader = caller
        group.leaders += 1
        return True

    def _follow(self, group: _Group, caller: _Caller, end: float) -> None:
        """Wait until the caller has a reply or an error, or is to lead. Raises RedisError when its time is up."""
        try:
            if self._wakes_by(group, caller, end):
                return
        except BaseException:
            self._leave(group, caller)
            raise
        self._leave(group, caller)
        raise exceptions.TimeoutError("no reply in time")

    def _wakes_by(self, group: _Group, caller: _Caller, end: float) -> bool:
        while (remaining := end - time.monotonic()) > 0:
            if caller.wakes.acquire(timeout=min(remaining, OVERTAKE_SECONDS)):
                return True
            with self._lock:
                if caller in group.waiting and self._may_lead(group, caller, overtakes=True):
                    group.waiting.remove(caller)
                    caller.leads = True
                    return True
        return False

    def _leave(self, group: _Group, caller: _Caller) -> None:
        with self._lock:
            if caller.leads:
                self._pass_on(group, caller, caller.command.group)
            elif caller in group.waiting:
                group.waiting.remove(caller)

    def _lead(self, group: _Group, caller: _Caller) -> Any:
        """Send the command of the leader and what waits, and let the next thread lead."""
        with self._lock:
            group.waiting.appendleft(caller)
            callers = take_callers(group.waiting)
        commands = [caller.command for caller in callers]
        try:
            reply = self._send(join_commands(commands))
        except exceptions.RedisError as error:
            if len(callers) == 1 or not is_wrong_type(error):
                for follower in callers[1:]:
                    follower.error = copy.copy(error)
                raise
            # It is about a key of one of the callers. The script has changed nothing.
        else:
            for member, results in zip(callers, split_reply(commands, reply), strict=True):
                member.reply = results
        finally:
            with self._lock:
                self._pass_on(group, caller, caller.command.group)
            for follower in callers[1:]:
                follower.wakes.release()
        return self._send(caller.command) if caller.reply is None else caller.reply

    def _pass_on(self, group: _Group, caller: object, name: Hashable) -> None:
        """Let the first thread that waits lead in place of the caller. The lock is held."""
        is_leader = group.leader is caller
        if group.waiting and (is_leader or group.leader is None):
            following = group.leader = group.waiting.popleft()
            following.leads = True
            following.wakes.release()
            return
        if is_leader:
            group.leader = None
        group.leaders -= 1
        if not group.leaders and self._groups.get(name) is group:
            del self._groups[name]
