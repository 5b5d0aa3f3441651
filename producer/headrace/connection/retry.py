"""The decision how long a client repeats a failed command, made without I/O.

Every command of Headrace may be repeated: a job's record makes a repeated submit one job, and the first outcome of
a job wins. So a lost reply, a broken connection and a restart of Redis need not reach the caller.
"""

from __future__ import annotations

import random

from redis import exceptions

from headrace.clock import exponential_delay
from headrace.connection.errors import is_read_only, is_transient

#: Most tries while Redis has never answered. The URL may be wrong, and the caller should soon learn it.
_MAX_FIRST_TRIES = 3
#: Seconds between tries: the first and the longest delay, before jitter.
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 0.5


class RetryPolicy:
    """The retry policy of one client's Redis. Safe for threads.

    A command to a Redis that has answered before is repeated for `seconds`, as long as a restart or a failover
    takes. If Redis has never answered, or is a read-only replica, there are a few tries in quick succession.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._has_answered = False

    def succeeded(self) -> None:
        """Note that Redis has answered."""
        self._has_answered = True

    def next_delay(
        self,
        error: exceptions.RedisError,
        *,
        tries: int,
        elapsed: float,
        timeout: float | None = None,
        jitter: float | None = None,
    ) -> float | None:
        """Return the seconds to wait before the next try, or None to give up.

        The command failed `tries` times, the last time with `error`, and was first sent `elapsed` seconds ago.
        `timeout` is the caller's time for the command in seconds; None means no limit. `jitter` is a number from
        0 to 1 by which the delay is multiplied; None takes a random one.
        """
        seconds = self._seconds if timeout is None else min(self._seconds, timeout)
        if isinstance(error, exceptions.TimeoutError):
            # The connection may be broken unnoticed, so one more try over a new connection is made. There is no
            # delay, as the timeout has passed already.
            return 0.0 if tries == 1 and (timeout is None or elapsed < timeout) else None
        if not is_transient(error):
            return None
        longest = exponential_delay(tries, first=_FIRST_DELAY, longest=_LONGEST_DELAY)
        delay = longest * (random.random() if jitter is None else jitter)  # noqa: S311  # spreads tries, no secret
        if not self._has_answered or is_read_only(error):
            return delay if tries < _MAX_FIRST_TRIES else None
        return delay if elapsed + delay < seconds else None
