"""The watch: of the idle workers of the same queues, one listens to Redis, and the others sleep until needed.

    finds nothing ── takes the watch ──> it is told of each list that changed, and claims
                 └── another has it ───> sleeps at the token lists (BLPOP): Redis wakes one worker for each token

A token names a queue in which jobs wait, by the list that it lies in. The watcher pushes one when it has no
process free for what it was told of. Whoever claims as many jobs as it may, and leaves others, pushes one in the
same step. So a job wakes one worker, however many are idle. A token is a hint, and may be lost: every worker that
sleeps looks by itself from time to time, the more rarely the more workers there are.

The watch is a lock that expires with its holder; the next worker that looks takes it. A worker that is never idle
gives it up. Where Redis refuses, and in older releases, each worker listens for itself.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis

from headrace.wire.keys import Keys
from headrace_worker.transport.election import TTL_MS

log = logging.getLogger("headrace.claims")

#: Seconds after which a token that nobody took is of no use: its queue was claimed from meanwhile.
TOKEN_SECONDS = 10
#: Seconds without a turn of the event loop after which a worker is not able to watch.
_STUCK_SECONDS = 2.0
#: Seconds for each worker between two looks of one that sleeps, and the least and the most of them.
_SECONDS_PER_WORKER, _LEAST_SECONDS, _MOST_SECONDS = 0.5, 1.0, 5.0
#: Seconds without sharing after Redis refused the lock, for instance as it is full.
_PAUSE_SECONDS = 60.0


class Watch:
    """The watch as one channel sees it. The lease keeper renews it, in its thread.

    `owner` is a name that no other channel has. `count_workers` returns the number of workers of the installation.
    """

    def __init__(
        self,
        keys: Keys,
        owner: str,
        count_workers: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys, self._owner, self._count_workers, self._clock = keys, owner, count_workers, clock
        self._queues: tuple[str, ...] = ()
        #: True if this worker listens for all; True if another one does, and this one sleeps.
        self.is_held = self.is_sleeping = False
        #: The last turn of the event loop.
        self.turned_at = clock()
        self._is_refused = False
        self._alone_until = 0.0

    def set_queues(self, queues: Iterable[str]) -> None:
        """Watch these queues. A watch of others lapses."""
        names = tuple(sorted(queues))
        if names != self._queues:
            self._queues, self.is_held, self.is_sleeping = names, False, False

    @property
    def key(self) -> str:
        """The key of the lock."""
        return self._keys.watch(self._queues)

    @property
    def is_shared(self) -> bool:
        """True if this worker listens for others, or others for it."""
        return not self._is_refused and self._clock() >= self._alone_until

    @property
    def listens(self) -> bool:
        """True if this worker is to be told of changed lists: it has the watch, or is on its own."""
        return self.is_held or not self.is_shared

    @property
    def must_hand_on(self) -> bool:
        """True if others may sleep while this worker knows of jobs."""
        return self.is_held and self.has_others

    def leaves_retried_jobs(self) -> bool:
        """Decide by chance whether another worker is woken for retried jobs; each is as likely as this one.

        A job is also retried if the worker lacks its version: another one may have it.
        """
        return self.must_hand_on and random.random() * self._count_workers() >= 1  # noqa: S311  # no secret

    @property
    def has_others(self) -> bool:
        """True if there are other workers, which may sleep."""
        return self._count_workers() > 1

    def take_command(self) -> Sequence[Any]:
        """Return the command that takes the watch if it is free; `receive_take` processes its reply."""
        return ("SET", self.key, self._owner, "NX", "PX", TTL_MS)

    def receive_take(self, reply: Any) -> None:
        """Process the reply to `take_command`; a refusal is a ResponseError."""
        if isinstance(reply, redis.ResponseError):
            self._alone_until = self._clock() + _PAUSE_SECONDS
            log.debug("cannot take the watch of idle workers: %s", reply)
            return
        self.is_held = reply is not None
        self.is_sleeping = not self.is_held

    def resign_commands(self) -> list[Sequence[Any]]:
        """Return the commands that give the watch up and wake a worker that takes it; none if it is not held."""
        if not self.is_held:
            return []
        self.is_held, key = False, self.free_key
        commands: list[Sequence[Any]] = [("PEXPIRE", self.key, 0)]  # deletes it; DEL is permitted for few keys
        if self.has_others:
            commands += [("LPUSH", key, 1), ("LTRIM", key, 0, 0), ("EXPIRE", key, TOKEN_SECONDS)]
        return commands

    @property
    def free_key(self) -> str:
        """The key of the token that says that the watch is free."""
        return self._keys.tokens(self.key)

    def wait_command(self, queues: Iterable[str], seconds: float) -> Sequence[Any]:
        """Return the command that waits for a token of these queues."""
        return ("BLPOP", self.free_key, *map(self._keys.tokens, queues), f"{seconds:.2f}")

    def wait_seconds(self) -> float:
        """Return the seconds until the next look of a worker that sleeps. They vary, so that looks spread."""
        seconds = min(_MOST_SECONDS, max(_LEAST_SECONDS, _SECONDS_PER_WORKER * self._count_workers()))
        return seconds * random.uniform(0.75, 1.25)  # noqa: S311  # no secret

    def refuse(self, error: redis.ResponseError | None) -> None:
        """Listen for itself from now on: Redis refuses to let this worker wait or listen.

        `error` is None if that was logged.
        """
        if error is not None:
            log.warning(
                "Redis refuses to wake one idle worker at a time (%s); each listens for itself, which costs Redis "
                "more the more workers there are. Permit this user BLPOP", error,
            )  # fmt: skip
        self._is_refused, self.is_held, self.is_sleeping = True, False, False

    def renew(self, client: redis.Redis, holder: bytes | None) -> None:
        """Renew the lock that this worker holds; `holder` is its value. Raises redis.RedisError."""
        if holder != self._owner.encode():
            self.is_held = False
        else:
            self.extend(client)

    def extend(self, client: redis.Redis) -> None:
        """Renew the lock without a look at its holder, unless the event loop is stuck. Raises redis.RedisError."""
        if self._clock() - self.turned_at < _STUCK_SECONDS:
            client.pexpire(self.key, TTL_MS)
