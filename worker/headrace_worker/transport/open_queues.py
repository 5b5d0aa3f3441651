"""The queues from which a worker may claim now, and for how long a queue fills up before a claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from headrace_worker.transport.claims import ClaimLimits

_NEVER = float("inf")


class OpenQueues:
    """The limits of the queues to claim from.

    `queue_limits`, `count_held`, `wake_after` and `clock` are those of `ClaimLoop`.
    """

    def __init__(
        self,
        queue_limits: Callable[[], Sequence[ClaimLimits]],
        count_held: Callable[[str], int],
        wake_after: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._queue_limits, self._count_held, self._wake_after = queue_limits, count_held, wake_after
        self._clock = clock
        #: True if the last claim skipped jobs of which the process holds as many claims as it may: those of a
        #: queue, or isolated ones.
        self.has_skipped_jobs = False
        #: When a queue that fills up has waited long enough, by queue.
        self._fill_until: dict[str, float] = {}

    def limits(self) -> list[ClaimLimits]:
        """Return the limits of the queues to claim from now: those of which this process may hold more claims."""
        open_limits, now = [], self._clock()
        self.has_skipped_jobs = False
        for limit in self._queue_limits():
            if limit.is_full:
                self.has_skipped_jobs = True
            elif limit.claims is not None and self._count_held(limit.queue) >= limit.claims:
                self.has_skipped_jobs = self.has_skipped_jobs or limit.claims > 0
            elif limit.wait and now < self._fill_until.get(limit.queue, _NEVER):
                open_limits.append(msgspec.structs.replace(limit, full_only=True))
            else:
                open_limits.append(limit)
        return open_limits

    def let_fill(self, queues: Sequence[str], limits: Sequence[ClaimLimits]) -> None:
        """Wake the loop when these queues, of these limits, have waited long enough to fill up."""
        waits = {limit.queue: limit.wait for limit in limits}
        for queue in queues:
            if queue not in self._fill_until:
                self._fill_until[queue] = self._clock() + waits[queue]
                self._wake_after(waits[queue])

    def record_claim(self, queue: str) -> None:
        """Record a claim of a queue: its next jobs fill up for as long."""
        self._fill_until.pop(queue, None)
