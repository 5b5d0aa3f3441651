"""The lock by which one of several workers does for all what need not be done by each.

The lock expires with its holder, and another worker takes it with its next look. Two workers may hold it for a
moment, for instance after one was frozen. So it saves work, and decides nothing.
"""

from __future__ import annotations

import contextlib
import logging
import random

import redis

log = logging.getLogger("headrace.claims")

#: Milliseconds after which the lock of a lost worker expires, and seconds between two renewals of a live one. Both
#: are short, as a lease may expire while its keeper is lost: its jobs must run within 2 s all the same.
TTL_MS, RENEW_SECONDS = 1200, 0.5
#: Seconds for each worker between two looks of one without the lock, and the least and the most of them.
_SECONDS_PER_WORKER, _LEAST_SECONDS, _MOST_SECONDS = 0.15, 0.3, 1.0


def look_seconds(workers: int) -> float:
    """Return the seconds between two looks of a worker without the lock, by the number of workers.

    They vary, so that the looks of several workers spread: one of them comes soon after the lock has expired.
    """
    seconds = min(_MOST_SECONDS, max(_LEAST_SECONDS, _SECONDS_PER_WORKER * workers))
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311  # no secret


class Election:
    """One worker's view of a lock; `key` and `owner` are the lock's key and the name of the worker."""

    def __init__(self) -> None:
        #: True if this worker does the task.
        self.is_won = False

    def update(self, client: redis.Redis, key: str, owner: str, holder: bytes | None) -> None:
        """Renew the lock, or take it if it is free. `holder` is its value now. Raises redis.RedisError."""
        if holder is not None:
            self.is_won = holder == owner.encode()
            if self.is_won:
                self.extend(client, key)
            return
        try:
            self.is_won = bool(client.set(key, owner, nx=True, px=TTL_MS))
        except redis.ResponseError as error:  # a full Redis, or a user who may not: then each works for itself
            log.debug("cannot take the lock %s: %s", key, error)
            self.is_won = True

    def extend(self, client: redis.Redis, key: str) -> None:
        """Renew the lock without a look at its holder. Raises redis.RedisError."""
        client.pexpire(key, TTL_MS)

    def resign(self, client: redis.Redis, key: str, owner: str) -> None:
        """Let another worker take the lock at once, as this one ends."""
        if self.is_won:
            self.is_won = False
            with contextlib.suppress(redis.RedisError):
                if client.get(key) == owner.encode():
                    client.pexpire(key, 0)
