"""The thread that renews the leases of this process, and brings back the jobs of lost workers.

It has a connection of its own, so that neither a busy event loop nor a model that computes for an hour loses a
lease. It also moves delayed jobs that are due, and deletes dead letters that are too old.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
import redis
from redis.exceptions import NoPermissionError

from headrace.connection.errors import is_read_only, is_wrong_type
from headrace.wire.attempts import LEASE_EXPIRED
from headrace.wire.keys import Keys
from headrace_worker.transport.claims import Claim, Lease
from headrace_worker.transport.leases import Leases
from headrace_worker.transport.letter_scripts import DeadLetterLimits

log = logging.getLogger("headrace.claims")

#: The share of a lease's time after which it is renewed: two renewals may fail before it is lost.
_RENEW_AFTER = 1 / 3
#: Seconds between two sweeps of expired leases, and of dead letters.
_SWEEP_SECONDS, _TRIM_SECONDS = 1.0, 60.0
#: Seconds between two looks into the lists of kombu clients with other priority steps. An idle worker is told.
_GATHER_SECONDS = 2.0
#: The most jobs that are moved from the foreign lists of a queue at once.
_GATHER_JOBS = 500
#: Seconds without a round after which the thread is late, unless a lease lasts longer.
_LATE_SECONDS = 30.0
_NEVER = float("inf")
#: Seconds that `close` waits for the thread.
_JOIN_SECONDS = 5.0


def silence_timeout(lease_seconds: float) -> float:
    """Return the seconds without a reply after which a worker drops its connection.

    Redis answers at once. A renewal needs time for a second try before the lease expires.
    """
    return max(1.0, lease_seconds * _RENEW_AFTER)


class OrphanedClaim(msgspec.Struct, frozen=True):
    """A claim whose reply was lost, or that nobody runs."""

    #: By the monotonic clock: the lease has expired then, and the claim is no longer searched for.
    search_until: float
    #: The id at Redis of the connection whose BLMOVE may still fill the lease; 0 for none.
    blocked_client: int


class LeaseKeeper:
    """The leases of one process. Thread-safe. In a forked process it starts without leases.

    `connect` opens the keeper's own connections; `lease_seconds` is the time after which a lease expires.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        keys: Keys,
        *,
        lease_seconds: float,
        limits: DeadLetterLimits,
    ) -> None:
        self.lease_ms = int(lease_seconds * 1000)
        #: Called once a minute while sweeps succeed.
        self.on_swept: Callable[[], None] = lambda: None
        #: Called in each sweep, with the keeper's client and the queues that are watched.
        self.on_sweep: Callable[[redis.Redis, Sequence[str]], None] = lambda _client, _queues: None
        #: Called before a request to Redis, and after a reply, about every second.
        self.on_request: Callable[[], None] = lambda: None
        self.on_reply: Callable[[], None] = lambda: None
        #: Called when a round of the thread begins, and when it has ended, with its error if there was one.
        self.on_round_begun: Callable[[], None] = lambda: None
        self.on_round_ended: Callable[[BaseException | None], None] = lambda _error: None
        self._connect, self._keys, self._limits = connect, keys, limits
        self._queues: tuple[str, ...] = ()
        #: The keys of the foreign lists of these queues.
        self._foreign_lists: frozenset[bytes] = frozenset()
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        #: The owner of the leases: unlike any other process, also one with the same id on the same host.
        self.owner = f"{host}/{self._pid}/{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)
        self._held: dict[str, Lease] = {}
        #: By the name of the lease.
        self._orphans: dict[str, OrphanedClaim] = {}
        #: Held leases that were missing at the last renewal.
        self._missing: set[str] = set()
        self._client: redis.Redis | None = None
        #: The names of damaged things that were logged.
        self._damaged: set[str] = set()
        self._is_closed = False
        #: Set when there is something to do before the next tick.
        self._is_urgent = threading.Event()
        #: When foreign lists are looked into next, by the monotonic clock.
        self._gather_at = 0.0
        self._thread: threading.Thread | None = None

    def next_name(self) -> str:
        """Return the name of a new lease: owner and number."""
        if self._pid != os.getpid():
            self._reset()
        return f"{self.owner}/{next(self._numbers)}"

    @property
    def late_seconds(self) -> float:
        """The seconds without a round after which leases may have expired."""
        return max(_LATE_SECONDS, self.lease_ms / 1000)

    def __len__(self) -> int:
        """Return the number of leases held."""
        return len(self._held)

    def count(self, queue: str) -> int:
        """Return the number of leases held of a queue."""
        return sum(lease.queue == queue for lease in list(self._held.values()))

    def count_isolated(self) -> int:
        """Return the number of leases held of isolated jobs."""
        return sum(lease.is_isolated for lease in list(self._held.values()))

    @property
    def names(self) -> list[str]:
        """The names of the leases held."""
        return list(self._held)

    @property
    def commands(self) -> Leases:
        """The operations on leases, on the keeper's own connections."""
        if self._client is None:
            self._client = self._connect()
            self._leases = Leases(self._client, self._keys, self._limits)
        return self._leases

    def watch(self, queues: Iterable[str]) -> None:
        """Move the delayed jobs of these queues from now on. The first call starts the thread."""
        self._queues = tuple(queues)
        self._foreign_lists = frozenset(
            name.encode() for queue in self._queues for name, _ in self._keys.foreign_lists(queue)
        )
        if self._thread is None and self._pid == os.getpid():
            self._thread = threading.Thread(
                target=self._run, args=(self.commands,), name="headrace-leases", daemon=True
            )
            self._thread.start()

    def keys_changed(self, changes: Iterable[set[bytes]]) -> None:
        """Look into the foreign lists soon if one of them changed. `changes` are the keys that Redis named."""
        is_permitted = self._gather_at != _NEVER
        if is_permitted and any(not self._foreign_lists.isdisjoint(keys) for keys in changes):
            self._gather_at = 0.0
            self._is_urgent.set()

    def hold(self, claim: Claim) -> None:
        """Renew the lease of a claim until the claim ends."""
        self._held[claim.lease.name] = claim.lease

    # --- the end of a claim: `name` is that of its lease -------------------------------------------------

    def acknowledge(self, name: str) -> None:
        """End a claim that is done. The lease of jobs has ended already, with their outcomes."""
        if (lease := self._held.pop(name, None)) and not lease.holds_jobs:
            self.commands.finish(lease)

    def discard(self, name: str) -> None:
        """End a claim that was rejected: the message of an ordinary task is deleted, jobs are requeued."""
        if lease := self._held.pop(name, None):
            if lease.holds_jobs:
                self._requeue(lease)
            else:
                self.commands.finish(lease)

    def requeue(self, name: str, *, behind: bool = False) -> None:
        """Requeue the messages of a claim where they came from; an ordinary one, with `behind`, at the end."""
        if lease := self._held.pop(name, None):
            self._requeue(lease, behind=behind)

    def _requeue(self, lease: Lease, *, behind: bool = False) -> None:
        try:
            self.commands.requeue(lease, delivered=True, behind=behind)
        except redis.RedisError as error:
            log.warning(
                "could not requeue a claim of %s, retrying until its lease expires: %s", lease.queue, error
            )
            self.adopt_orphan(lease.name)

    def requeue_isolated(self, name: str, cause: str) -> None:
        """End a claim whose process was lost: its jobs run again, each alone."""
        if lease := self._held.pop(name, None):
            count = self.commands.requeue_isolated(lease, cause, owner=self.owner)
            log.warning("%s: %d jobs of %s run again, each alone", cause, count, lease.queue)

    def adopt_orphan(self, name: str, blocked_client: int = 0) -> None:
        """Requeue an orphaned claim as soon as Redis answers, if it was ever made. It costs no attempt.

        `blocked_client` is the id at Redis of the connection whose BLMOVE may still fill the lease.
        """
        self._held.pop(name, None)
        self._orphans[name] = OrphanedClaim(time.monotonic() + self.lease_ms / 1000, blocked_client)
        self._is_urgent.set()

    def close(self) -> int:
        """Stop, and requeue all claims, as this process ends. Returns the number of claims requeued."""
        if self._pid != os.getpid():
            return 0
        self._is_closed = True
        self._is_urgent.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=_JOIN_SECONDS)
        held, orphans = set(self._held), dict(self._orphans)
        self._held.clear()
        self._orphans.clear()
        names = {*held, *orphans}
        try:
            names = held | self._end_blocking(self.commands, orphans)
            leases = self.commands.find(names) if names else []
            requeued = 0
            for lease in leases:
                with self._skipping_damaged(f"a claim of {lease.queue}"):
                    requeued += self.commands.requeue(lease, delivered=lease.name in held) > 0
            return requeued
        except redis.RedisError as error:
            log.warning(
                "could not requeue %d claims: %s. Other workers run them after their leases expire",
                len(names),
                error,
            )
            return 0
        finally:
            if self._client is not None:
                self._client.connection_pool.disconnect()

    # --- the thread -------------------------------------------------------------------------------------

    def _run(self, commands: Leases) -> None:
        renew_seconds = self.lease_ms / 1000 * _RENEW_AFTER
        tick = min(_SWEEP_SECONDS, renew_seconds)
        renew_at, sweep_from, trim_at = time.monotonic() + renew_seconds, 0.0, 0.0
        has_failed = False
        while True:
            self._is_urgent.wait(tick)
            self._is_urgent.clear()
            if self._is_closed:
                return
            now = time.monotonic()
            self.on_round_begun()
            self.on_request()
            try:
                if now >= renew_at:
                    renew_at = now + renew_seconds
                    self._renew(commands)
                self._requeue_orphans(commands, now)
                if now >= sweep_from:
                    self._sweep(commands)
                    self.on_sweep(commands.client, self._queues)
                if now >= self._gather_at:
                    self._gather_at = now + _GATHER_SECONDS
                    self._gather(commands)
                if now >= trim_at:
                    trim_at = now + _TRIM_SECONDS
                    with self._skipping_damaged("the list of dead letters"):
                        commands.trim_all_dead_letters(self._queues)
                    self.on_swept()
                self.on_reply()
                self.on_round_ended(None)
                has_failed = False
            except Exception as error:  # noqa: BLE001  # whatever it was: without renewals every lease is lost
                self.on_round_ended(error)
                log.warning("could not renew or sweep leases, retrying: %s", error)
                if isinstance(error, redis.ResponseError):
                    self.on_reply()
                # Redis may have been away for everybody: let all live owners renew before a sweep.
                renew_at, sweep_from = now, now + renew_seconds + tick
                if is_read_only(error):
                    commands.reconnect()
                if not has_failed:  # a connection that was cut: retry at once on a new one
                    has_failed = True
                    self._is_urgent.set()

    def _renew(self, commands: Leases) -> None:
        held = list(self._held.values())
        lost = {lease.name: lease for lease in commands.renew(held, lease_ms=self.lease_ms)} if held else {}
        # The lease of a claim that was just published is missing too, until its message is acknowledged. So a
        # lease counts as lost when it is missing twice.
        for name in self._missing & lost.keys() & self._held.keys():
            log.warning("lost the lease of a claim of %s; other workers run its jobs", lost[name].queue)
            self._held.pop(name, None)
        self._missing = set(lost)

    def _requeue_orphans(self, commands: Leases, now: float) -> None:
        orphans = dict(self._orphans)
        names = self._end_blocking(commands, orphans)
        for lease in commands.find(names) if names else ():
            with self._skipping_damaged(f"an orphaned claim of {lease.queue}"):
                count = commands.requeue(lease)
                log.info("requeued an orphaned claim of %s: %d messages", lease.queue, count)
        for name, orphan in orphans.items():
            if orphan.search_until < now or name not in names:
                self._orphans.pop(name, None)

    def _end_blocking(self, commands: Leases, orphans: Mapping[str, OrphanedClaim]) -> set[str]:
        """End each BLMOVE that may still fill an orphaned claim.

        Returns the names of the claims that are safe to requeue. The others are left to expire.
        """
        clients = {orphan.blocked_client for orphan in orphans.values() if orphan.blocked_client}
        is_ended = {client: commands.unblock(client) for client in clients} | {0: True}
        return {name for name, orphan in orphans.items() if is_ended[orphan.blocked_client]}

    def _sweep(self, commands: Leases) -> None:
        expired = commands.expired()
        # After a restart of Redis, the leases of live owners have expired too, and they are about to renew them.
        if expired and commands.uptime_seconds() * 1000 < self.lease_ms:
            expired = []
        for lease in expired:
            with self._skipping_damaged(f"an expired lease of {lease.queue}"):
                count = commands.requeue_isolated(lease, LEASE_EXPIRED, owner=lease.owner, only_if_expired=True)
                if not count:
                    continue
                # The owner was killed, or cut off from Redis: a worker that is told to stop requeues its claims.
                log.error(
                    "the worker of a claim of %s was lost: %d jobs run again, each alone", lease.queue, count
                )
        for queue in self._queues:
            with self._skipping_damaged(f"the delayed jobs of {queue}"):
                while commands.move_due(queue):
                    pass

    def _gather(self, commands: Leases) -> None:
        """Move the jobs in foreign lists to the lists that are claimed."""
        try:
            for queue in commands.find_foreign(self._queues):
                with self._skipping_damaged(f"the jobs in foreign lists of {queue}"):
                    if commands.gather(queue, _GATHER_JOBS) == _GATHER_JOBS:
                        self._gather_at = 0.0  # there may be more: first the leases are renewed
                        self._is_urgent.set()
        except NoPermissionError as error:
            self._gather_at = _NEVER
            log.warning(
                "Redis refuses to look for jobs in the lists of Celery clients with other priority_steps or sep "
                "(%s); permit this user the keys of docs/reference/acl.md",
                error,
            )

    @contextlib.contextmanager
    def _skipping_damaged(self, name: str) -> Iterator[None]:
        """Skip, in the block, a thing of which a key is of another type: it must not stop the others."""
        try:
            yield
        except redis.ResponseError as error:
            if not is_wrong_type(error):
                raise
            if name not in self._damaged:  # once, not every second
                self._damaged.add(name)
                log.error("%s cannot be moved, and waits until the key is deleted: %s", name, error)  # noqa: TRY400
