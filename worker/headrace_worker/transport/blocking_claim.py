"""The blocking claim: an idle worker waits at Redis for the next job of a list, under a lease parked before.

    claim finds nothing ─> lease parked ─> BLMOVE list lease ─┬─> one job arrived: it is under the lease, run it
              ^                                               ├─> more arrived with it: claim them all
              │                                               └─> none in time
              └───────────────────────────────────────────────────────┘

Redis moves the job in the step that pushed it, to the worker that has waited longest. That is one round trip
without a script, where a notification and a claim are two. A blocking claim waits at one list, that of the last
jobs. For all others there are `notifications`, which end the wait.

The job is as safe as with a claim. The lease is in `Keys.leases` before BLMOVE is sent. Whoever ends it ends the
wait first: the owner, as all its commands go over one connection in order, or with CLIENT UNBLOCK; a sweep, as it
finds the lease expired and empty twice, ten seconds apart. A BLMOVE that comes later still, from a connection that
was given up or a process that was stopped, is refused: a string lies in place of the list (`lease_scripts`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from headrace.connection.errors import is_wrong_type, missing_command
from headrace.connection.server_time import READ_SERVER_TIME, decode_server_time
from headrace.wire.keys import Keys
from headrace.wire.queues import holds_histories
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease
from headrace_worker.transport.notifications import LOOK_SECONDS

log = logging.getLogger("headrace.claims")

#: The most of a lease that one BLMOVE takes. It begins in the first half of the lease.
_BLOCK_SHARE = 0.15
#: Seconds without a blocking claim after Redis refused one: until somebody changes its users, or while it is full,
#: cannot write its disk, or fails over.
_LASTING_PAUSE_SECONDS, _SHORT_PAUSE_SECONDS = 60.0, 1.0


class BlockingClaim:
    """The blocking claims of one channel, and the lease of the current one.

    `clock` is a monotonic clock in seconds.
    """

    def __init__(self, keys: Keys, lease_seconds: float, clock: Callable[[], float]) -> None:
        self._keys, self._lease_seconds, self._clock = keys, lease_seconds, clock
        #: The most seconds of one BLMOVE. The lease of a job that arrives in the last moment is renewed in time.
        self.seconds = min(LOOK_SECONDS, lease_seconds * _BLOCK_SHARE)
        #: From its first offer until a claim finds jobs. It may be in `Keys.leases` and hold a job.
        self.lease: Lease | None = None
        #: Before this time nobody can have found the lease expired and ended it.
        self._valid_until = 0.0
        #: The queue and the source (an index in `Keys.sources`) of the last claim.
        self._last_source: tuple[str, int] | None = None
        #: The last two claims came from the same list of jobs.
        self._is_repeated = False
        #: More jobs than one wait, or the lease was ended as this machine was frozen before it sent BLMOVE.
        self.must_claim = False
        self._last_refusal = ""
        self._paused_until = 0.0

    def offer(self, limits: Sequence[ClaimLimits], next_name: Callable[[], str]) -> Lease | None:
        """Return the lease to park if a claim with these limits finds nothing; None to park none.

        None is parked if the next job may come from any list: to wait at one then costs more than it saves.
        """
        if self.lease is not None:
            return self.lease if _is_claimed(self.lease.queue, limits) else None
        if self._last_source is None or not self._is_repeated or self._clock() < self._paused_until:
            return None
        queue, source = self._last_source
        if _is_claimed(queue, limits):
            self.lease = Lease(name=next_name(), queue=queue, origins=((source, 1),), blocking=True)
        return self.lease

    def record_claim(self, claim: Claim) -> None:
        """Record a claim with jobs: it has ended the lease that was offered with it."""
        source, _ = claim.lease.origins[0]
        last_source = (claim.lease.queue, source)
        is_repeated = claim.lease.holds_jobs and last_source == self._last_source
        # The next job hardly comes to a list of jobs that run again.
        self._is_repeated = is_repeated and not holds_histories(source)
        self._last_source = last_source
        self.drop()

    def record_nothing(self, *, parked: bool, sent_at: float) -> None:
        """Record a claim that found nothing, was sent at `sent_at`, and may have parked the lease."""
        self._valid_until = sent_at + self._lease_seconds / 2 if parked else 0.0

    def drop(self) -> Lease | None:
        """Forget the lease. Returns it; None if there was none."""
        lease, self.lease, self._valid_until = self.lease, None, 0.0
        return lease

    def drop_closed(self, limits: Sequence[ClaimLimits]) -> Lease | None:
        """Forget and return a lease that was parked at a queue of which nothing is claimed now; None without."""
        if self.lease is None or any(limit.queue == self.lease.queue for limit in limits):
            return None
        return self.drop()

    def parked_lease(self) -> Lease | None:
        """Return the lease to wait under; None if none is parked, or Redis refused to wait."""
        return self.lease if self._paused_until <= self._clock() < self._valid_until else None

    @property
    def source_key(self) -> str | None:
        """The key of the list to wait at; None without a lease."""
        if self.lease is None:
            return None
        return self._keys.sources(self.lease.queue)[self.lease.origins[0][0]]

    def commands(self, lease: Lease) -> list[Sequence[Any]]:
        """Return the commands that wait for a job under the lease; `receive` processes their replies."""
        return [
            ("BLMOVE", self.source_key, self._keys.lease(lease.name), "RIGHT", "LEFT", self.seconds),
            ("ZSCORE", self._keys.leases, lease.member),
            ("LLEN", self.source_key),
            ("EXISTS", self._keys.cancelled),
            READ_SERVER_TIME.args,
        ]

    def receive(self, replies: Sequence[Any]) -> Claim | None:
        """Process the replies to `commands`; a refusal is a ResponseError among them.

        Returns the claim of the job that arrived. None if none did, or if a claim is to follow (`must_claim`).
        """
        self.must_claim = True
        if refusals := [reply for reply in replies if isinstance(reply, redis.ResponseError)]:
            if replies[1] is None and is_wrong_type(refusals[0]):
                self.drop()  # the lease was ended as this machine was stopped before it sent BLMOVE
            else:
                self._refuse(refusals[0])
            return None
        message, expiry, waiting, is_cancelled, server_time = replies
        if message is None and expiry is not None and not waiting:
            self.must_claim = False
            return None  # the lease is parked as before
        self._valid_until = 0.0
        if message is None or expiry is None or waiting or self.lease is None:
            return None
        return Claim(
            lease=self.lease,
            queued_messages=[message],
            check_outcomes=bool(is_cancelled),
            claimed_ms=decode_server_time(server_time),
            claimed_monotonic=self._clock(),
        )

    def _refuse(self, error: redis.ResponseError) -> None:
        self._valid_until = 0.0
        self.pause(is_lasting=_is_lasting(error))
        if str(error) != self._last_refusal:
            self._last_refusal = str(error)
            log.warning("Redis refuses BLMOVE (%s); idle workers wait for notifications instead", error)

    def pause(self, *, is_lasting: bool = True) -> None:
        """Park no lease for a while, and do not wait under one. `is_lasting`: Redis will go on refusing."""
        self._paused_until = self._clock() + (_LASTING_PAUSE_SECONDS if is_lasting else _SHORT_PAUSE_SECONDS)


def _is_lasting(error: redis.ResponseError) -> bool:
    """Return whether Redis refuses until somebody changes its users, its version or a key."""
    is_refused_command = isinstance(error, NoPermissionError) or missing_command(error) is not None
    return is_refused_command or is_wrong_type(error)


def _is_claimed(queue: str, limits: Sequence[ClaimLimits]) -> bool:
    """Return whether a claim with these limits takes from the queue at once, under a lease."""
    return any(limit.queue == queue and limit.leased and not limit.wait for limit in limits)
