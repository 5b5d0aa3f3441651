"""How long a command is sent again while Redis is away: a decision, made without I/O.

Every command of Headrace may be repeated: a job's record makes a repeated submit one job, and the first
outcome of a job wins. So a lost reply, a cut connection and a restart need not reach the caller.
"""

from __future__ import annotations

import random

from redis import exceptions

from headrace.connection.errors import is_read_only, is_transient

#: Tries of a Redis that has never answered: its URL may be wrong, and who starts a program wants to hear of it.
_TRIES = 3
#: Seconds between tries, at first and at the most; the true rest is a random part of it.
_FIRST, _LONGEST = 0.05, 0.5


class RetryPolicy:
    """That of one client with its Redis. Safe for threads.

    A Redis that has answered before is waited for, `seconds` for each command: a restart or a failover takes
    as long. One that never did, or takes no writes as it is a replica, has a few tries in quick succession.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._answered = False

    def succeeded(self) -> None:
        """Redis has answered."""
        self._answered = True

    def next_delay(
        self,
        error: exceptions.RedisError,
        *,
        tries: int,
        elapsed: float,
        timeout: float | None = None,
        jitter: float | None = None,
    ) -> float | None:
        """Seconds to rest before the command is sent again; None to give up.

        It has failed `tries` times, the last with `error`, and was first sent `since` seconds ago; its caller
        has `within` seconds for it, where that is less than ours. `part` is a random number from 0 to 1.
        """
        seconds = self._seconds if timeout is None else min(self._seconds, timeout)
        if isinstance(error, exceptions.TimeoutError):
            # The connection may be dead without our knowing; a fresh one tells. It has taken its time already.
            return 0.0 if tries == 1 and (timeout is None or elapsed < timeout) else None
        if not is_transient(error):
            return None
        longest = min(_LONGEST, _FIRST * 2 ** min(tries - 1, 10))
        rest = longest * (random.random() if jitter is None else jitter)  # noqa: S311  # spreads tries, no secret
        if not self._answered or is_read_only(error):
            return rest if tries < _TRIES else None
        return rest if elapsed + rest < seconds else None
