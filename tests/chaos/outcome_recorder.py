"""Two records of published outcomes: a subscription, and Redis's append-only file.

The subscription has the time of each publication. It receives nothing without a connection, so for restarts of
Redis the append-only file counts: it contains every write of an outcome.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

RESULT_PREFIX = "celery-task-meta-"

#: In the value of a result key, the state of a job that runs: it is no outcome, and an outcome follows it.
_RUNNING = b'"status":"STARTED"'
#: Commands that store an outcome.
_STORE_COMMANDS = {b"SET", b"SETEX", b"PSETEX", b"SETNX", b"GETSET"}


class OutcomeRecorder:
    """A subscriber to all outcomes, on a direct connection to Redis, as a context manager.

    `prefix` is the key prefix of the system.
    """

    def __init__(self, client: redis.Redis, prefix: str = "") -> None:
        #: The Redis to subscribe to; after a failover, the new primary.
        self.client = client
        self._prefix = prefix + RESULT_PREFIX
        #: The monotonic times of the publications, by job id.
        self.published: dict[str, list[float]] = {}
        self._stopped = threading.Event()
        self._subscribed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="chaos-recorder", daemon=True)

    def seconds_to_next(self, moment: float) -> float | None:
        """Return the seconds from a monotonic time to the next publication; None if there was none."""
        return min(
            (
                published_at - moment
                for times in self.published.values()
                for published_at in times
                if published_at > moment
            ),
            default=None,
        )

    def _listen(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(redis.RedisError, OSError):
                self._receive()
            time.sleep(0.01)

    def follow(self, client: redis.Redis) -> None:
        """Subscribe to another Redis, whose former one still answers; return when that is done."""
        self._subscribed.clear()
        self.client = client
        if not self._subscribed.wait(10):
            raise TimeoutError("the recorder could not subscribe to the other Redis")

    def _receive(self) -> None:
        client = self.client
        with client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.psubscribe(f"{self._prefix}*")
            while not self._stopped.is_set():
                message = subscription.get_message(timeout=0.2)
                if self.client is not client:
                    return
                self._subscribed.set()
                if message is not None and message["type"] == "pmessage":
                    job = message["channel"].decode().removeprefix(self._prefix)
                    self.published.setdefault(job, []).append(time.monotonic())

    def __enter__(self) -> Self:
        self._thread.start()
        self._subscribed.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(10)


def count_repeated_writes(folder: Path, prefix: str = "") -> int:
    """Count the writes of outcomes in a server's append-only files, beyond the first of each job."""
    stored: Counter[bytes] = Counter()
    for path in sorted({*folder.rglob("*.incr.aof"), *folder.rglob("appendonly.aof")}):
        for command in _commands_of(path):
            if (
                len(command) > 2
                and command[0].upper() in _STORE_COMMANDS
                and command[1].startswith((prefix + RESULT_PREFIX).encode())
                and not any(_RUNNING in argument[:100] for argument in command[2:])
            ):
                stored[command[1]] += 1
    return sum(stored.values()) - len(stored)


def _commands_of(path: Path) -> Iterator[list[bytes]]:
    """Yield the commands of a file, which may be larger than the memory."""
    if path.stat().st_size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as log:
            yield from _commands(log)


def _commands(log: bytes | mmap.mmap) -> Iterator[list[bytes]]:
    """Yield the commands of an append-only file, without an incomplete one at its end."""
    position = 0
    while log[position : position + 1] == b"*":
        end = log.find(b"\r\n", position)
        count, position, command = int(log[position + 1 : end]), end + 2, list[bytes]()
        for _ in range(count):
            end = log.find(b"\r\n", position)
            if end < 0:
                return
            length = int(log[position + 1 : end])
            command.append(log[end + 2 : end + 2 + length])
            position = end + 2 + length + 2
        if position > len(log):
            return
        yield command
