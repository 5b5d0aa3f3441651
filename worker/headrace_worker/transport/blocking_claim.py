"""The lease that stands: what an idle worker leaves with Redis, so that a job comes with what would wake it.

    claim finds nothing ─> its lease stands ─> BLMOVE list lease ─┬─> a job has come, and is under the lease
              ^                                                   ├─> others have come with it: claim them too
              │                                                   └─> none in time
              └──────────────────────────────────────────────────────────┘

Redis moves the job in the step that pushed it, to the worker that has waited longest: one trip where a wake-up and
a claim are two, and no script. A lease stands at one list, that of the last jobs; for all others there is the
wake-up (`wakeup`), which ends the wait.

The job is as safe as with a claim. The lease is in `leases` before the wait begins, with half a millisecond too
much in its score until it is renewed, as nothing is under it at first. Whoever takes it away knows that the wait
is over: the owner, as all goes over one connection, in order, or after CLIENT UNBLOCK; anybody else as he looks
twice (LAPSE).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.wire.keys import Keys
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease
from headrace_worker.transport.notifications import POLL_EVERY

log = logging.getLogger("headrace.claims")

#: Seconds for which Redis is left alone after it would not let us wait.
_PAUSE = 60.0


class BlockingClaim:
    """The lease of one channel that stands while nothing waits. Moments are of a monotonic clock, in seconds."""

    def __init__(self, keys: Keys, lasts: float) -> None:
        self._keys, self._lasts = keys, lasts
        #: It may be in `leases`, and hold a job, from when it is offered until a claim finds jobs.
        self.lease: Lease | None = None
        #: Until when a wait may begin: nobody has seen that the lease lapsed, and taken it away.
        self._until = 0.0
        #: Queue and list of the last jobs, and whether those before came from there too.
        self._place: tuple[str, int] | None = None
        self._twice = False
        self._refusal = ""
        self._paused_until = 0.0

    def offered(self, asks: Sequence[ClaimLimits], next_name: Callable[[], str]) -> Lease | None:
        """The lease to stand where a claim of these finds nothing; None where the next job may come anywhere.

        Then to wait in one place costs more than it saves.
        """
        if self.lease is None:
            if self._place is None or not self._twice or time.monotonic() < self._paused_until:
                return None
            queue, source = self._place
            self.lease = Lease(name=next_name(), queue=queue, origins=((source, 1),), blocking=True)
        queue = self.lease.queue
        return self.lease if any(ask.queue == queue and ask.leased and not ask.wait for ask in asks) else None

    def record_claim(self, claim: Claim) -> None:
        """Tell what was claimed: the lease that was offered stands no more."""
        source, _ = claim.lease.origins[0]
        place = (claim.lease.queue, source)
        # What was lost with its process runs alone, and is not waited for.
        self._twice = bool(source) and claim.lease.holds_jobs and place == self._place
        self._place = place
        self.drop()

    def is_parked(self, stands: bool, since: float) -> None:
        """Tell of a claim that found nothing, whether the lease that was offered stands, and when it was sent."""
        self._until = since + self._lasts / 2 if stands else 0.0

    def drop(self) -> Lease | None:
        """Forget the lease, and say which it was."""
        lease, self.lease, self._until = self.lease, None, 0.0
        return lease

    def waiting(self) -> Lease | None:
        """The lease to wait for, if one stands."""
        return self.lease if self._paused_until <= time.monotonic() < self._until else None

    @property
    def source(self) -> str | None:
        """The list at which the lease stands."""
        if self.lease is None:
            return None
        return self._keys.sources(self.lease.queue)[self.lease.origins[0][0]]

    def commands(self, lease: Lease) -> list[Sequence[Any]]:
        """What to send to wait. All are answered when a job has come, or none has in time."""
        return [
            ("BLMOVE", self.source, self._keys.lease(lease.name), "RIGHT", "LEFT", POLL_EVERY),
            ("ZSCORE", self._keys.leases, lease.member),
            ("LLEN", self.source),
            ("EXISTS", self._keys.cancelled),
            READ_SERVER_TIME.args,
        ]

    def read(self, connection: Any) -> Claim | None:
        """The job that has come, alone. None where a claim is to be made: of none, or of this one and others.

        Of this one also where the lease stands no more, as this machine was frozen before it waited.

        Raises redis.RedisError when the connection is lost.
        """
        replies = [_reply(connection) for _ in range(5)]
        self._until = 0.0
        if errors := [reply for reply in replies if isinstance(reply, redis.ResponseError)]:
            self._refused(errors[0])
            return None
        frame, stood, others, look, time_reply = replies
        if frame is None or stood is None or others or self.lease is None:
            return None
        at_ms = decode_server_time(time_reply)
        return Claim(
            lease=self.lease,
            queued_messages=[frame],
            check_outcomes=bool(look),
            claimed_ms=at_ms,
            claimed_monotonic=time.monotonic(),
        )

    def _refused(self, error: redis.ResponseError) -> None:
        self.pause()
        if str(error) != self._refusal:
            self._refusal = str(error)
            log.warning("Redis lets no claim wait (%s); an idle worker is woken, and claims then", error)

    def pause(self) -> None:
        """Let nothing stand for a while."""
        self._paused_until = time.monotonic() + _PAUSE


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
