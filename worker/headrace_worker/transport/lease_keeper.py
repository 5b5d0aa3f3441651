"""Keep what this process has claimed, and bring back what others have lost.

A thread with a connection of its own renews the leases, so that neither a busy event loop nor a model that
computes for an hour loses one. The same thread sweeps: leases of lost owners, whoever they were, delayed jobs
that are due, and dead letters that are too old.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping

import redis

from headrace.connection.errors import is_read_only
from headrace.wire.attempts import LEASE_EXPIRED
from headrace.wire.keys import Keys
from headrace_worker.transport.claims import Claim, Lease
from headrace_worker.transport.leases import Leases
from headrace_worker.transport.publish_script import DeadLetterLimits

log = logging.getLogger("headrace.claims")

#: Leases are renewed when this part of their time is over: two renewals may fail before one is lost.
_RENEW_AT = 1 / 3
#: Seconds between two sweeps, and between two looks for dead letters that are too old.
_SWEEP_EVERY, _BOUND_EVERY = 1.0, 60.0


def silence_timeout(lasts: float) -> float:
    """Seconds without a reply after which a connection is dead to a worker whose leases last so long.

    Redis answers at once. A renewal needs its second try before the lease lapses, and outcomes theirs soon.
    """
    return max(1.0, lasts * _RENEW_AT)


class LeaseKeeper:
    """The leases of one process. Thread-safe; in a process forked later it begins anew, with none."""

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        keys: Keys,
        *,
        lease_seconds: float,
        bounds: DeadLetterLimits,
    ) -> None:
        self.lease_ms = int(lease_seconds * 1000)
        #: Called once a minute, while sweeping goes well.
        self.on_swept: Callable[[], None] = lambda: None
        #: Called before Redis is asked something, and once it has answered, each about every second.
        self.on_request: Callable[[], None] = lambda: None
        self.on_reply: Callable[[], None] = lambda: None
        self._connect, self._keys, self._bounds = connect, keys, bounds
        self._queues: tuple[str, ...] = ()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        #: Who claims: unlike any other process, also one of the same number on the same host.
        self.owner = f"{host}/{self._pid}/{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)
        self._held: dict[str, Lease] = {}
        #: Names of leases to give back as soon as Redis answers, until when (monotonic) to look for them, and the
        #: connection (its id at Redis) whose wait may yet fill them.
        self._strays: dict[str, tuple[float, int]] = {}
        #: Held, but missing at the last renewal.
        self._missing: set[str] = set()
        self._client: redis.Redis | None = None
        self._closed = False
        #: Set when there is something to do before the next tick.
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    def next_name(self) -> str:
        """The name of a lease to be: owner and number."""
        if self._pid != os.getpid():
            self._begin()
        return f"{self.owner}/{next(self._numbers)}"

    def __len__(self) -> int:
        """How many leases are held."""
        return len(self._held)

    def of_queue(self, queue: str) -> int:
        """How many leases of a queue are held."""
        return sum(lease.queue == queue for lease in list(self._held.values()))

    @property
    def names(self) -> list[str]:
        """The names of the leases held."""
        return list(self._held)

    def watch(self, queues: Iterable[str]) -> None:
        """Sweep for these queues from now on, and keep sweeping."""
        self._queues = tuple(queues)
        if self._thread is None and self._pid == os.getpid():
            self._thread = threading.Thread(
                target=self._run, args=(self.commands,), name="headrace-leases", daemon=True
            )
            self._thread.start()

    def hold(self, claim: Claim) -> None:
        """Renew the lease of a claim until it is ended."""
        self._held[claim.lease.name] = claim.lease

    def acknowledge(self, name: str) -> None:
        """Done with. The lease of an ordinary message ends here; that of jobs ended when they were published."""
        if (lease := self._held.pop(name, None)) and not lease.holds_jobs:
            self.commands.finish(lease)

    def discard(self, name: str) -> None:
        """Not wanted. An ordinary message is gone; jobs are not: they go back."""
        if lease := self._held.pop(name, None):
            if lease.holds_jobs:
                self._requeue(lease)
            else:
                self.commands.finish(lease)

    def requeue(self, name: str, *, behind: bool = False) -> None:
        """Put the claim's messages back where they came from; an ordinary one may go behind what waits there."""
        if lease := self._held.pop(name, None):
            self._requeue(lease, behind=behind)

    def _requeue(self, lease: Lease, *, behind: bool = False) -> None:
        try:
            self.commands.requeue(lease, delivered=True, behind=behind)
        except redis.RedisError as error:
            log.warning("could not put a claim of %s back, will do so when Redis answers: %s", lease.queue, error)
            self.adopt_orphan(lease.name)

    def requeue_isolated(self, name: str, cause: str) -> None:
        """The process that ran the claim was lost: its jobs run again, each alone."""
        if lease := self._held.pop(name, None):
            count = self.commands.requeue_isolated(lease, cause, owner=self.owner)
            log.warning("%s: %d jobs of %s go back, to run alone", cause, count, lease.queue)

    def adopt_orphan(self, name: str, waits: int = 0) -> None:
        """Nobody runs this claim, if it was ever made: give it back, uncounted, as soon as Redis answers.

        `waits` is the connection, by its id at Redis, whose wait may yet fill a lease that stands.
        """
        self._held.pop(name, None)
        self._strays[name] = (time.monotonic() + self.lease_ms / 1000, waits)
        self._hurry.set()

    def close(self) -> int:
        """Stop, and put everything back: this process ends. Returns the number of claims put back."""
        if self._pid != os.getpid():
            return 0
        self._closed = True
        self._hurry.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        held = set(self._held)
        strays = dict(self._strays)
        self._held.clear()
        self._strays.clear()
        names = {*held, *strays}
        try:
            names = held | self._certain(self.commands, strays)
            leases = self.commands.find(names) if names else []
            return sum(self.commands.requeue(lease, delivered=lease.name in held) > 0 for lease in leases)
        except redis.RedisError as error:
            log.warning("could not put %d claims back, they run elsewhere when they lapse: %s", len(names), error)
            return 0
        finally:
            if self._client is not None:
                self._client.connection_pool.disconnect()

    @property
    def commands(self) -> Leases:
        """Commands on connections of the keeper's own."""
        if self._client is None:
            self._client = self._connect()
            self._leases = Leases(self._client, self._keys, self._bounds)
        return self._leases

    def _run(self, commands: Leases) -> None:
        renew_every = self.lease_ms / 1000 * _RENEW_AT
        tick = min(_SWEEP_EVERY, renew_every)
        renew_at, sweep_from, failed = time.monotonic() + renew_every, 0.0, False
        bound_at = 0.0
        while True:
            self._hurry.wait(tick)
            self._hurry.clear()
            if self._closed:
                return
            now = time.monotonic()
            self.on_request()
            try:
                if now >= renew_at:
                    renew_at = now + renew_every
                    self._renew(commands)
                self._give_back(commands, now)
                if now >= sweep_from:
                    self._sweep(commands)
                if now >= bound_at:
                    bound_at = now + _BOUND_EVERY
                    commands.trim_dead_letters()
                    self.on_swept()
                self.on_reply()
                failed = False
            except Exception as error:  # noqa: BLE001  # whatever it was: without renewals every lease is lost
                log.warning("could not renew or sweep leases, will try again: %s", error)
                if isinstance(error, redis.ResponseError):
                    self.on_reply()
                # Redis was away for everyone. Let all who live renew, before what is left counts as lost.
                renew_at, sweep_from = now, now + renew_every + tick
                if is_read_only(error):
                    commands.reconnect()
                if not failed:  # a connection that was cut: another is open in no time
                    failed = True
                    self._hurry.set()

    def _renew(self, commands: Leases) -> None:
        held = list(self._held.values())
        lost = {lease.name: lease for lease in commands.renew(held, lease_ms=self.lease_ms)} if held else {}
        # The lease of a claim that has just been published is missing too, until its message is acknowledged.
        for name in self._missing & lost.keys() & self._held.keys():
            log.warning("lost the lease of a claim of %s; its jobs run elsewhere", lost[name].queue)
            self._held.pop(name, None)
        self._missing = set(lost)

    def _give_back(self, commands: Leases, now: float) -> None:
        strays = dict(self._strays)
        names = self._certain(commands, strays)
        for lease in commands.find(names) if names else ():
            log.info("a claim of %s reached nobody; %d messages go back", lease.queue, commands.requeue(lease))
        for name, (until, _) in strays.items():
            if until < now or name not in names:
                self._strays.pop(name, None)

    def _certain(self, commands: Leases, strays: Mapping[str, tuple[float, int]]) -> set[str]:
        """Those whose leases no wait can fill any more. The others lapse."""
        unblocked = {waits: commands.unblock(waits) for waits in {waits for _, waits in strays.values()} if waits}
        return {name for name, (_, waits) in strays.items() if not waits or unblocked[waits]}

    def _sweep(self, commands: Leases) -> None:
        lapsed = commands.expired()
        # Redis was away for everyone, also if this worker started later and never saw it: leases have lapsed whose
        # owners live, and come to renew them.
        if lapsed and commands.uptime_seconds() * 1000 < self.lease_ms:
            lapsed = []
        for lease in lapsed:
            if count := commands.requeue_isolated(lease, LEASE_EXPIRED, owner=lease.owner, only_if_expired=True):
                # It was ended without a word, or cut off: a worker that is told to stop puts its claims back.
                log.error("the owner of a claim of %s was lost: %d jobs run again, alone", lease.queue, count)
        for queue in self._queues:
            while commands.move_due(queue):
                pass
