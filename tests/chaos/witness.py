"""Observers of published outcomes: a subscriber of the suite, and Redis's append-only file.

The subscriber tells when an outcome was announced, and how often. It hears nothing while it has no connection, so
over restarts of Redis the append-only file is the proof: every write of a result key is in it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

RESULT = "celery-task-meta-"

#: Commands that store a result.
_STORES = {b"SET", b"SETEX", b"PSETEX", b"SETNX", b"GETSET"}


class Witness:
    """Hears every announcement of an outcome, on a connection past any proxy. A context manager."""

    def __init__(self, client: redis.Redis) -> None:
        #: Where to listen; after a failover, the new primary.
        self.client = client
        #: Job id -> when (monotonic) each announcement came.
        self.published: dict[str, list[float]] = {}
        self._over = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="chaos-witness", daemon=True)

    def twice(self) -> int:
        """Announcements beyond the first of each job."""
        return sum(len(times) - 1 for times in self.published.values())

    def first_after(self, moment: float) -> float | None:
        """Seconds from a moment to the next announcement; None where none came."""
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
        while not self._over.is_set():
            with contextlib.suppress(redis.RedisError, OSError):
                self._hear()
            time.sleep(0.01)

    def _hear(self) -> None:
        with self.client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.psubscribe(f"{RESULT}*")
            while not self._over.is_set():
                message = subscription.get_message(timeout=0.2)
                self._listening.set()
                if message is not None and message["type"] == "pmessage":
                    job = message["channel"].decode().removeprefix(RESULT)
                    self.published.setdefault(job, []).append(time.monotonic())

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(10)


def stored_twice(folder: Path) -> int:
    """Writes of result keys beyond the first of each, as the append-only files of a server tell."""
    stored: Counter[bytes] = Counter()
    for path in sorted({*folder.rglob("*.incr.aof"), *folder.rglob("appendonly.aof")}):
        for words in _commands(path.read_bytes()):
            if len(words) > 2 and words[0].upper() in _STORES and words[1].startswith(RESULT.encode()):
                stored[words[1]] += 1
    return sum(stored.values()) - len(stored)


def _commands(log: bytes) -> Iterator[list[bytes]]:
    """The commands of an append-only file; what was cut off at its end is none."""
    position = 0
    while log.startswith(b"*", position):
        end = log.find(b"\r\n", position)
        count, position, words = int(log[position + 1 : end]), end + 2, list[bytes]()
        for _ in range(count):
            end = log.find(b"\r\n", position)
            if end < 0:
                return
            length = int(log[position + 1 : end])
            words.append(log[end + 2 : end + 2 + length])
            position = end + 2 + length + 2
        if position > len(log):
            return
        yield words
