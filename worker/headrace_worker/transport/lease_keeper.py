"""The thread that renews the leases of this process, and brings back the jobs of lost workers.

It has a connection of its own, so that neither a busy event loop nor a model that computes for an hour loses a
lease. Of the workers of the same queues, one is the keeper of the queues (`election`). It alone ends expired
leases, moves due jobs, and looks into foreign lists, so that these cost the same for any number of workers.
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
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import redis
from redis.exceptions import NoPermissionError

from headrace.connection.commands import Pipeline, execute
from headrace.connection.errors import is_read_only
from headrace.connection.outage_log import OutageLog, is_outage
from headrace.results.letter_scripts import DeadLetterLimits
from headrace.wire.keys import Keys
from headrace_worker.transport.claims import Claim, Lease
from headrace_worker.transport.election import RENEW_SECONDS, Election, look_seconds
from headrace_worker.transport.leases import Leases
from headrace_worker.transport.queue_sweeps import QueueSweeps
from headrace_worker.transport.watch import Watch

log = logging.getLogger("headrace.claims")

#: The share of a lease's time after which it is renewed: two renewals may fail before it is lost.
_RENEW_AFTER = 1 / 3
#: Seconds between two sweeps of expired leases, and of dead letters.
_SWEEP_SECONDS, _TRIM_SECONDS = 1.0, 60.0
#: The least seconds between two sweeps, of which the second follows the expiry of a lease.
_LEAST_SWEEP_SECONDS = 0.05
#: Seconds without a round after which the thread is late, unless a lease lasts longer.
_LATE_SECONDS = 30.0
#: The name of the keeper in the log of outages.
_COMPONENT = "leases"
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
        #: Called about every second with the value of `Keys.changes`.
        self.on_changes: Callable[[bytes | None], None] = lambda _changes: None
        #: Returns the number of workers of the installation.
        self.count_workers: Callable[[], int] = lambda: 1
        #: Called in each sweep of the keeper of the queues, with its client and the queues that are watched.
        self.on_sweep: Callable[[redis.Redis, Sequence[str]], None] = lambda _client, _queues: None
        #: Called before a request to Redis, and after a reply, about every second.
        self.on_request: Callable[[], None] = lambda: None
        self.on_reply: Callable[[], None] = lambda: None
        #: Called when a round of the thread begins, and when it has ended, with its error if there was one.
        self.on_round_begun: Callable[[], None] = lambda: None
        self.on_round_ended: Callable[[BaseException | None], None] = lambda _error: None
        #: The log of the outages of Redis; a worker has one for all its loops.
        self.outages = OutageLog(log)
        self._connect, self._keys, self._limits = connect, keys, limits
        self._queues: tuple[str, ...] = ()
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
        self._is_closed = False
        #: Set when there is something to do before the next tick.
        self._is_urgent = threading.Event()
        self._election, self._watches = Election(), list[Watch]()
        self._sweeps = QueueSweeps(self._keys, self.lease_ms)
        self._thread: threading.Thread | None = None

    def next_name(self) -> str:
        """Return the name of a new lease: owner and number."""
        if self._pid != os.getpid():
            self._reset()
        return f"{self.owner}/{next(self._numbers)}"

    def open_watch(self) -> Watch:
        """Return the watch of a channel, which this renews."""
        watch = Watch(self._keys, self.next_name(), lambda: self.count_workers())  # noqa: PLW0108  # it is set later
        self._watches.append(watch)
        return watch

    def close_watch(self, watch: Watch) -> None:
        """Give a watch up, so that another worker takes it at once."""
        if watch in self._watches:
            self._watches.remove(watch)
            with contextlib.suppress(redis.RedisError):
                execute(self.commands.client, Pipeline(tuple(map(tuple, watch.resign_commands()))))

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

    def count_bulk(self) -> int:
        """Return the number of leases held of bulk jobs."""
        return sum(lease.is_bulk for lease in list(self._held.values()))

    def count_isolated(self) -> int:
        """Return the number of leases held of isolated jobs."""
        return sum(lease.is_isolated for lease in list(self._held.values()))

    @property
    def keeps_queues(self) -> bool:
        """True if this worker is the keeper of its queues."""
        return self._election.is_won

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
        self._sweeps.watch(self._queues)
        if self._thread is None and self._pid == os.getpid():
            self._thread = threading.Thread(
                target=self._run, args=(self.commands,), name="headrace-leases", daemon=True
            )
            self._thread.start()

    def keys_changed(self, changes: Iterable[set[bytes]]) -> None:
        """Look into the foreign lists soon if one of them changed. `changes` are the keys that Redis named."""
        if self._sweeps.keys_changed(changes):
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
        if self._client is not None:
            self._election.resign(self._client, self._keys.keeper(self._queues), self.owner)
        held, orphans = set(self._held), dict(self._orphans)
        self._held.clear()
        self._orphans.clear()
        names = {*held, *orphans}
        try:
            names = held | self._end_blocking(self.commands, orphans)
            leases = self.commands.find(names) if names else []
            requeued = 0
            for lease in leases:
                with self._sweeps.skipping_damaged(f"a claim of {lease.queue}"):
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
        sweep_seconds = min(_SWEEP_SECONDS, renew_seconds)
        renew_at, look_at, sweep_from, trim_at = time.monotonic() + renew_seconds, 0.0, 0.0, 0.0
        has_failed = False
        while True:
            until_look = look_at - time.monotonic()  # of an instance without locks, and after an error, it is past
            seconds = min(sweep_seconds, self._round_seconds())
            self._is_urgent.wait(min(seconds, until_look) if until_look > 0 else seconds)
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
                if now < look_at:
                    self._extend_locks(commands.client)
                else:
                    self._look(commands.client)
                    seconds = self._sweep(commands) if self.keeps_queues and now >= sweep_from else sweep_seconds
                    look_at = now + min(seconds, sweep_seconds) if self._holds_locks else 0.0
                if self._sweeps.gather(commands, now, keeps_queues=self.keeps_queues):
                    self._is_urgent.set()  # there may be more: first the leases are renewed
                if now >= trim_at:
                    trim_at = now + _TRIM_SECONDS
                    with self._sweeps.skipping_damaged("the list of dead letters"):
                        commands.trim_all_dead_letters(self._queues)
                    self.on_swept()
                self.on_reply()
                self.on_round_ended(None)
                self.outages.succeeded(_COMPONENT)
                has_failed = False
            except Exception as error:  # noqa: BLE001  # whatever it was: without renewals every lease is lost
                self.on_round_ended(error)
                if not is_outage(error):
                    log.warning("could not renew or sweep leases, retrying: %s", error)
                elif has_failed:  # the first time, it may be a connection that was cut
                    self.outages.failed(_COMPONENT, error)
                if isinstance(error, redis.ResponseError):
                    self.on_reply()
                # Redis may have been away for everybody: let all live owners renew before a sweep.
                renew_at, look_at, sweep_from = now, 0.0, now + renew_seconds + sweep_seconds
                if is_read_only(error):
                    commands.reconnect()
                if not has_failed:  # a connection that was cut: retry at once on a new one
                    has_failed = True
                    self._is_urgent.set()

    def _sweep(self, commands: Leases) -> float:
        """Do what the keeper of the queues does for all. Return the seconds until the next sweep is due."""
        expires_in = self._sweeps.sweep(commands)
        self.on_sweep(commands.client, self._queues)
        # A lease that expires so soon is that of a lost worker: others are renewed long before.
        return float("inf") if expires_in is None else max(expires_in, _LEAST_SWEEP_SECONDS)

    @property
    def _holds_locks(self) -> bool:
        return self.keeps_queues or any(watch.is_held for watch in self._watches)

    def _round_seconds(self) -> float:
        """Return the seconds until the next round."""
        return RENEW_SECONDS if self._holds_locks else look_seconds(self.count_workers())

    def _extend_locks(self, client: redis.Redis) -> None:
        """Renew the locks that this worker holds, as far as it knows."""
        if self.keeps_queues:
            self._election.extend(client, self._keys.keeper(self._queues))
        for watch in self._watches:
            if watch.is_held:
                watch.extend(client)

    def _look(self, client: redis.Redis) -> None:
        """See who keeps the queues, and whether aliases or pauses changed."""
        key, watches = self._keys.keeper(self._queues), [watch for watch in self._watches if watch.is_held]
        names = [key, self._keys.changes, *(watch.key for watch in watches)]
        try:
            replies: list[bytes | None] = client.mget(names)  # type: ignore[assignment]  # bytes
        except NoPermissionError:
            replies = [None] * len(names)
        holder, changes, *watchers = replies
        self._election.update(client, key, self.owner, holder)
        self.on_changes(changes)
        for watch, watcher in zip(watches, watchers, strict=True):
            watch.renew(client, watcher)

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
            with self._sweeps.skipping_damaged(f"an orphaned claim of {lease.queue}"):
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
