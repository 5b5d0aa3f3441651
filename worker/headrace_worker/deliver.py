"""Write outcomes back: the last step of a job's way through a pool process.

The first outcome of a job is the one it has: a job cancelled meanwhile stays cancelled, and a job that ran
twice publishes once (`headrace.publish` holds the script that sees to it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import redis

from headrace import publish
from headrace.outcome import Outcome
from headrace.queues import Keys

#: Waits before each further try while Redis is away: a restart takes a few seconds.
_BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 2.0, 5.0, 5.0, 10.0)


def deliver(
    client: redis.Redis,
    keys: Keys,
    outcomes: Sequence[Outcome],
    *,
    ttl: int,
    sleep: Callable[[float], None] = time.sleep,
) -> list[bool]:
    """Publish outcomes, each unless its job has one; says which were published.

    Repeats while Redis is away; raises redis.RedisError when it stays away.
    """
    script = client.register_script(publish.SCRIPT)
    names, values = publish.call(keys, outcomes, ttl=ttl, now=datetime.now(UTC))
    for wait in (*_BACKOFF, None):
        try:
            replies = script(keys=names, args=values)
        except (redis.ConnectionError, redis.TimeoutError):
            if wait is None:
                raise
            sleep(wait)
        else:
            return [bool(reply) for reply in replies]
    raise AssertionError  # pragma: no cover  # the loop returns or raises
