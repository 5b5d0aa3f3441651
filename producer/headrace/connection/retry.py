"""The decision how long a client repeats a failed command, made without I/O.

Every command of Headrace may be repeated: a job's record makes a repeated submit one job, and the first outcome of
a job wins. So a lost reply, a broken connection and a restart of Redis need not reach the caller.
"""

from __future__ import annotations

import random

from redis import exceptions

from headrace.clock import exponential_delay
from headrace.connection.cluster_errors import SlotMoved
from headrace.connection.errors import is_read_only, is_transient

#: Most tries while Redis has never answered. The URL may be wrong, and the caller should soon learn it.
_MAX_FIRST_TRIES = 3
#: Seconds between tries: the first and the longest delay, before jitter.
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 0.5


class RetryPolicy:
    """The retry policy of one client's Redis. Safe for threads.

    A command to a Redis that has answered before is repeated while its time lasts: through a restart, a failover.
    If Redis has never answered, or is a read-only replica, there are a few tries in quick succession.
    """

    def __init__(self) -> None:
        self._has_answered = False

    def succeeded(self) -> None:
        """Note that Redis has answered."""
        self._has_answered = True

    def next_delay(
        self,
        error: exceptions.RedisError,
        *,
        tries: int,
        remaining: float,
        jitter: float | None = None,
    ) -> float | None:
        """Return the seconds to wait before the next try, or None to give up.

        The command failed `tries` times, the last time with `error`, and has `remaining` seconds left. `jitter` is
        a number from 0 to 1 by which the delay is multiplied; None takes a random one.
        """
        if isinstance(error, exceptions.TimeoutError):
            # The connection may be broken unnoticed, so one more try over a new connection is made. There is no
            # delay, as the time of the first try has passed already.
            return 0.0 if tries == 1 and remaining > 0 else None
        if not is_transient(error):
            return None
        longest = exponential_delay(tries, first=_FIRST_DELAY, longest=_LONGEST_DELAY)
        delay = longest * (random.random() if jitter is None else jitter)  # noqa: S311  # spreads tries, no secret
        # A node of a cluster that does not serve the slot has answered: another serves it, or will do so soon.
        is_limited = not isinstance(error, SlotMoved) and (not self._has_answered or is_read_only(error))
        if is_limited and tries >= _MAX_FIRST_TRIES:
            return None
        return delay if delay < remaining else None


def command_seconds(timeout: float, *, blocks: bool) -> float:
    """Return the seconds that a command may take with all its tries. `timeout` is that of the settings.

    A command that blocks at Redis is sent twice if the first form of its script is refused, and blocks twice then.
    """
    return 2 * timeout if blocks else timeout


def try_seconds(remaining: float, *, tries: int, blocks: bool) -> float:
    """Return the seconds that the next try may take, of the `remaining` ones of its command.

    The first try takes half of them at most: if its connection is broken unnoticed, there is time for another.
    A command that blocks at Redis gets all of them at once. `tries` is the number of tries so far.
    """
    return remaining / 2 if tries == 0 and not blocks else remaining
