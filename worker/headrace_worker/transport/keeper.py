"""Keep what this process has claimed, and bring back what others have lost.

A thread with a connection of its own renews the leases, so that neither a busy event loop nor a model that
computes for an hour loses one. The same thread sweeps: leases of lost owners, whoever they were, and
delayed jobs that are due.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable

import redis

from headrace_worker.transport.scripts import Claim, Lease, LeaseKeys, Leases

log = logging.getLogger("headrace.claims")

#: Leases are renewed when this part of their time is over: two renewals may fail before one is lost.
_RENEW_AT = 1 / 3
#: Seconds between two sweeps.
_SWEEP_EVERY = 1.0


class Keeper:
    """The leases of one process. Thread-safe; belongs to the process that made it, not to one forked later."""

    def __init__(self, connect: Callable[[], redis.Redis], names: LeaseKeys, *, lasts: float) -> None:
        #: Who claims: unlike any other process, also one of the same number on the same host.
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self.lasts_ms = int(lasts * 1000)
        self._connect, self._names = connect, names
        self._numbers = itertools.count(1)
        self._held: dict[str, Lease] = {}
        self._queues: tuple[str, ...] = ()
        self._commands: Leases | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def next_name(self) -> str:
        """The name of a lease to be: owner and number."""
        return f"{self.owner}/{next(self._numbers)}"

    def watch(self, queues: Iterable[str]) -> None:
        """Sweep for these queues from now on, and keep sweeping."""
        self._queues = tuple(queues)
        if self._thread is None and self._pid == os.getpid():
            self._thread = threading.Thread(target=self._run, name="headrace-leases", daemon=True)
            self._thread.start()

    def hold(self, claim: Claim) -> None:
        """Renew the lease of a claim until it is ended."""
        self._held[claim.lease.name] = claim.lease

    def forget(self, name: str) -> Lease | None:
        """The claim was ended elsewhere: by the pool process that published its outcomes."""
        return self._held.pop(name, None)

    def finish(self, name: str) -> None:
        """The message of the claim is done with."""
        if lease := self.forget(name):
            self.commands.finish(lease)

    def release(self, name: str) -> None:
        """Put the claim's jobs back where they came from."""
        if lease := self.forget(name):
            self.commands.release(lease)

    def lapse(self, name: str, cause: str) -> None:
        """The process that ran the claim was lost: its jobs run again, each alone."""
        if lease := self.forget(name):
            count = self.commands.lapse(lease, cause, owner=self.owner)
            log.warning("%s: %d jobs of %s run again, each alone", cause, count, lease.queue)

    def release_all(self) -> int:
        """Put everything back: this process ends. Returns the number of claims."""
        released = 0
        for name in list(self._held):
            self.release(name)
            released += 1
        return released

    @property
    def commands(self) -> Leases:
        """Commands on a connection of the keeper's own."""
        if self._commands is None:
            self._commands = Leases(self._connect(), self._names)
        return self._commands

    def close(self) -> None:
        """Stop renewing and sweeping."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        commands = Leases(self._connect(), self._names)
        renew_every = self.lasts_ms / 1000 * _RENEW_AT
        renew_at = time.monotonic() + renew_every
        while not self._stop.wait(min(_SWEEP_EVERY, renew_every)):
            try:
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + renew_every
                    self._renew(commands)
                self._sweep(commands)
            except redis.RedisError as error:
                log.warning("could not renew or sweep leases, will try again: %s", error)

    def _renew(self, commands: Leases) -> None:
        held = list(self._held.values())
        if not held:
            return
        for lease in commands.renew(held, lasts_ms=self.lasts_ms):
            # Its jobs run elsewhere by now. What runs here cannot publish: the fence refuses it. A claim
            # that was ended between the snapshot and the renewal is missing too, and no loss.
            if self.forget(lease.name):
                log.warning("lost the lease of a claim of %s; its jobs run elsewhere", lease.queue)

    def _sweep(self, commands: Leases) -> None:
        for lease in commands.lapsed():
            if count := commands.lapse(lease, "lapse", owner=lease.name, only_if_lapsed=True):
                log.warning(
                    "the owner of a claim of %s was lost: %d jobs run again, each alone", lease.queue, count
                )
        for queue in self._queues:
            while commands.due(queue):
                pass
