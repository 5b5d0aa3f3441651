"""The sweeps of the keeper of the queues: expired leases, due jobs, and jobs in foreign lists."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence

import redis
from redis.exceptions import NoPermissionError

from headrace.connection.errors import is_wrong_type
from headrace.wire.attempts import LEASE_EXPIRED
from headrace.wire.keys import Keys
from headrace_worker.transport.leases import Leases

log = logging.getLogger("headrace.claims")

#: Seconds between two looks into the lists of kombu clients with other priority steps. An idle worker is told.
_GATHER_SECONDS = 2.0
#: The most jobs that are moved from the foreign lists of a queue at once.
_GATHER_JOBS = 500
_NEVER = float("inf")


class QueueSweeps:
    """The sweeps of the queues of one worker."""

    def __init__(self, keys: Keys, lease_ms: int) -> None:
        self._keys, self._lease_ms = keys, lease_ms
        self._queues: tuple[str, ...] = ()
        #: The keys of the foreign lists of these queues.
        self._foreign_lists: frozenset[bytes] = frozenset()
        #: When foreign lists are looked into next, by the monotonic clock; 0 is at once, by any worker.
        self._gather_at = 0.0
        #: The names of damaged things that were logged.
        self._damaged: set[str] = set()

    def watch(self, queues: Sequence[str]) -> None:
        """Sweep these queues."""
        self._queues = tuple(queues)
        self._foreign_lists = frozenset(
            name.encode() for queue in queues for name, _ in self._keys.foreign_lists(queue)
        )

    def keys_changed(self, changes: Iterable[set[bytes]]) -> bool:
        """Look into the foreign lists with the next round if one of these keys is one. Returns whether it is."""
        is_permitted = self._gather_at != _NEVER
        if not is_permitted or all(self._foreign_lists.isdisjoint(keys) for keys in changes):
            return False
        self._gather_at = 0.0
        return True

    def sweep(self, commands: Leases) -> float | None:
        """End expired leases of any worker, and move due jobs.

        Returns the seconds until the next lease expires; None if that is not known.
        """
        if not commands.client.exists(self._keys.leases, *map(self._keys.delayed, self._queues)):
            return None
        expired, next_seconds = commands.find_expired()
        # After a restart of Redis, the leases of live owners have expired too, and they are about to renew them.
        if expired and commands.uptime_seconds() * 1000 < self._lease_ms:
            expired = []
        requeued = set()
        for lease in expired:
            with self.skipping_damaged(f"an expired lease of {lease.queue}"):
                count = commands.requeue_isolated(lease, LEASE_EXPIRED, owner=lease.owner, only_if_expired=True)
                if not count:
                    continue
                # The owner was killed, or cut off from Redis: a worker that is told to stop requeues its claims.
                log.error(
                    "the worker of a claim of %s was lost: %d jobs run again, each alone", lease.queue, count
                )
                requeued.add(lease.queue)
        if requeued:  # the lost worker may have been the one that wakes the others
            with contextlib.suppress(redis.ResponseError):  # where Redis refuses tokens, each worker listens
                commands.pass_tokens(sorted(requeued))
        for queue in commands.find_delayed(self._queues):
            with self.skipping_damaged(f"the delayed jobs of {queue}"):
                while commands.move_due(queue):
                    pass
        return next_seconds

    def gather(self, commands: Leases, now: float, *, keeps_queues: bool) -> bool:
        """Move the jobs in foreign lists to those that are claimed, if it is time. Returns whether more may be."""
        if now < self._gather_at or not (keeps_queues or self._gather_at == 0.0):
            return False
        self._gather_at, has_more = now + _GATHER_SECONDS, False
        try:
            for queue in commands.find_foreign(self._queues):
                with self.skipping_damaged(f"the jobs in foreign lists of {queue}"):
                    has_more = commands.gather(queue, _GATHER_JOBS) == _GATHER_JOBS or has_more
        except NoPermissionError as error:
            self._gather_at = _NEVER
            log.warning(
                "Redis refuses to look for jobs in the lists of Celery clients with other priority_steps or sep "
                "(%s); permit this user the keys of docs/reference/acl.md",
                error,
            )
        else:
            if has_more:
                self._gather_at = 0.0
        return has_more

    @contextlib.contextmanager
    def skipping_damaged(self, name: str) -> Iterator[None]:
        """Skip, in the block, a thing of which a key is of another type: it must not stop the others."""
        try:
            yield
        except redis.ResponseError as error:
            if not is_wrong_type(error):
                raise
            if name not in self._damaged:  # once, not every second
                self._damaged.add(name)
                log.error("%s cannot be moved, and waits until the key is deleted: %s", name, error)  # noqa: TRY400
