"""The operations on leases, as Redis performs them: each is one script (`claim_script` and so on).

    claim ──> renew ──> publish               outcomes, dead letters and retries are stored, the lease ends
                 │────> requeue               the messages go back to their lists, without an attempt
                 └────> requeue_isolated      the run was lost: the jobs run alone, with one attempt more
    move_due                                  delayed jobs that are due go to their queue
    trim_dead_letters                         dead letters that are too old or too many are deleted

A lease is a member of the sorted set `Keys.leases`, scored by the time it expires, and a list with the claimed
messages, byte for byte. The member names the owner, the lists the messages came from, and the queue. A member is
never used twice: an operation that finds it missing has lost the claim and does nothing. That is the fence.

The lease of a blocking claim is parked before it holds a message (`blocking_claim`): Redis moves the next job of a
list under it. While it is empty, it may not end as long as its owner may still be waiting.

No operation rewrites a job's message. An attempt is written before it (`headrace.wire.attempts`).
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import redis

from headrace.catalog.published import fetch_model_names
from headrace.connection.commands import Command, Pipeline, execute
from headrace.results.letter_scripts import DeadLetterLimits, store_command, trim_command
from headrace.wire.dead_letter import DeadLetter
from headrace.wire.keys import Keys
from headrace.wire.queues import queue_name
from headrace_worker.transport.claim_script import claim_command, decode_claim, messages_command
from headrace_worker.transport.claims import Claim, ClaimLimits, IsolatedTurn, Lease, NothingClaimed, parse_lease
from headrace_worker.transport.lease_scripts import (
    expired_command,
    finish_command,
    gather_command,
    move_due_command,
    renew_command,
    requeue_command,
    requeue_isolated_command,
)
from headrace_worker.transport.ordinary_message import mark_redelivered
from headrace_worker.transport.publish_script import StoredFollowUps, publish_command
from headrace_worker.transport.run_script import RunUpdate, publish_run_command
from headrace_worker.transport.token_script import pass_tokens_command

log = logging.getLogger("headrace.claims")

_DEFAULT_LIMITS = DeadLetterLimits()
#: Seconds between two searches for old dead letters, and the queues and letters of one call of the script.
_TRIM_SECONDS, _QUEUES_PER_TRIM, _LETTERS_PER_TRIM = 50.0, 100, 1000


class ExpiredLeases(NamedTuple):
    """Leases that have expired."""

    leases: list[Lease]
    #: Seconds until the next lease expires. None: there is none, or some have expired.
    next_seconds: float | None


class Leases:
    """The leases of one installation, on one client of Redis. Every method raises redis.RedisError.

    `call` calls a script on the client: `execute` repeats it if the connection breaks.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        limits: DeadLetterLimits = _DEFAULT_LIMITS,
        call: Callable[[redis.Redis, Command], Any] = execute,
    ) -> None:
        self.client, self._keys, self._limits, self._call = client, keys, limits, call

    def _run(self, command: Command) -> Any:
        return self._call(self.client, command)

    def claim(
        self,
        name: str,
        limits: Sequence[ClaimLimits],
        *,
        lease_ms: int,
        lowest_first: bool = False,
        isolated: IsolatedTurn = "first",
        retried_first: bool = True,
        parked: Lease | None = None,
    ) -> Claim | NothingClaimed:
        """Claim waiting messages; if nothing waits, park the lease `parked`. See `claim_command`."""
        command = claim_command(
            self._keys,
            name,
            limits,
            lease_ms=lease_ms,
            lowest_first=lowest_first,
            isolated=isolated,
            retried_first=retried_first,
            parked=parked,
        )
        reply, messages = execute(self.client, Pipeline((command, messages_command(self._keys, name))))
        if isinstance(reply, Exception):
            raise reply
        return decode_claim(reply, messages, name, limits, time.monotonic())

    def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[Lease]:
        """Let leases expire `lease_ms` milliseconds from now. Returns those that are lost."""
        members = {lease.member.encode(): lease for lease in leases}
        return [members[member] for member in self._run(renew_command(self._keys, [*members], lease_ms=lease_ms))]

    def publish(
        self,
        lease: Lease,
        outcomes: Mapping[str, bytes],
        *,
        ttl: int,
        clients: Mapping[str, str] = MappingProxyType({}),
        dead_letters: Sequence[tuple[DeadLetter, bytes]] = (),
        delayed: Sequence[tuple[int, bytes]] = (),
        record_seconds: Mapping[str, int] = MappingProxyType({}),
        follow_ups: Sequence[StoredFollowUps] = (),
        hold_ms: int = 0,
        run_update: RunUpdate | None = None,
    ) -> list[bool] | None:
        """End a claim: store its outcomes for `ttl` seconds, its dead letters, its retries and what follows.

        `outcomes` are as stored, by job id. `clients` names, by job id, the client on whose reply channel the
        outcome is published too. A dead letter comes with its message. It is stored only if the outcome of its job
        is published in the same call, or is already stored; that of a malformed message always is. `delayed` are
        pairs of milliseconds from now and a member of `Keys.delayed`. `record_seconds` says by job id how long
        the records of the delayed jobs must live from now; a foreign client's job has no record. Other workers
        leave the follow-ups to the caller for `hold_ms`. `run_update` is what the only outcome changes in its bulk
        run.

        Returns for each outcome whether it was published; None if the lease was lost, and then does nothing.
        """
        command = publish_command(
            self._keys,
            lease,
            outcomes,
            ttl=ttl,
            clients=clients,
            dead_letters=dead_letters,
            delayed=delayed,
            record_seconds=record_seconds,
            follow_ups=follow_ups,
            hold_ms=hold_ms,
            limits=self._limits,
        )
        if run_update is not None:
            command = publish_run_command(self._keys, command, run_update, lease=lease)
        replies = self._run(command)
        if replies is None:
            return None
        *published, dropped = replies
        self._log_dropped(dropped)
        return [bool(reply) for reply in published]

    def store_dead_letter(self, letter: DeadLetter, message: bytes, lease: Lease | None) -> None:
        """Store a malformed message as a dead letter, and end its lease, if it has one."""
        if lease is not None:
            self.publish(lease, {}, ttl=1, dead_letters=[(letter, message)])
            return
        self._run(store_command(self._keys, letter, message))

    def trim_dead_letters(self, queues: Sequence[str], limit: int = _LETTERS_PER_TRIM) -> int:
        """Delete the oldest dead letters of queues beyond the limits, at most `limit`. Returns their number."""
        if not queues:
            return 0
        dropped = int(self._run(trim_command(self._keys, queues, limits=self._limits, limit=limit)))
        self._log_dropped(dropped)
        return dropped

    def trim_all_dead_letters(self, queues: Iterable[str]) -> None:
        """Delete the dead letters beyond the limits of these queues and of all models with a contract.

        Of all workers, one does so every _TRIM_SECONDS: another call in this time does nothing.
        """
        if not self.client.zcard(self._keys.dead_times):
            return
        try:
            if not self.client.set(self._keys.dead_trimmed, 1, nx=True, px=int(1000 * _TRIM_SECONDS)):
                return
        except redis.OutOfMemoryError:
            pass  # then deleting letters is all the more important
        names = sorted({*queues, *map(queue_name, fetch_model_names(self.client, self._keys))})
        for first in range(0, len(names), _QUEUES_PER_TRIM):
            self.trim_dead_letters(names[first : first + _QUEUES_PER_TRIM])

    def _log_dropped(self, letters: int) -> None:
        if letters:
            log.warning(
                "dropped the %d oldest dead letters: a queue keeps at most %d, for at most %.0f days",
                letters,
                self._limits.max_count,
                self._limits.max_age_seconds / 86_400,
            )

    def finish(self, lease: Lease) -> bool:
        """End the claim of an ordinary message that was acknowledged. Returns whether the lease was held."""
        return bool(self._run(finish_command(self._keys, lease)))

    def requeue(
        self, lease: Lease, *, only_if_expired: bool = False, delivered: bool = False, behind: bool = False
    ) -> int:
        """Requeue a claim's messages where they came from, without an attempt. Returns their number.

        The message of an ordinary task that was `delivered` is marked so, and with `behind` it goes behind all
        messages that wait. Both are ignored for jobs.
        """
        behind = behind and not lease.holds_jobs
        marked = b""
        if delivered and not lease.holds_jobs:
            first: list[bytes] = self.client.lrange(self._keys.lease(lease.name), 0, 0)  # type: ignore[assignment]  # bytes
            marked = b"".join(map(mark_redelivered, first))
        command = requeue_command(
            self._keys, lease, only_if_expired=only_if_expired, behind=behind, first_message=marked
        )
        return int(self._run(command))

    def requeue_isolated(self, lease: Lease, cause: str, *, owner: str, only_if_expired: bool = False) -> int:
        """End a claim whose run was lost: its jobs run alone from now on, with one attempt more.

        Messages of ordinary tasks go back where they came from. Returns the number of jobs or messages.
        """
        if not lease.holds_jobs:
            return self.requeue(lease, only_if_expired=only_if_expired, delivered=True)
        command = requeue_isolated_command(
            self._keys, lease, only_if_expired=only_if_expired, cause=cause, owner=owner
        )
        return int(self._run(command))

    def find_expired(self, limit: int = 100) -> ExpiredLeases:
        """Find expired leases of any owner, at most `limit`.

        Members of another form are passed over, however many there are.
        """
        leases: list[Lease] = []
        skip = 0
        while not leases:
            next_ms, *members = self._run(expired_command(self._keys, skip=skip, limit=limit))
            if not members:
                return ExpiredLeases([], next_ms / 1000 if next_ms > 0 else None)
            leases = [lease for member in members if (lease := parse_lease(member))]
            skip += len(members)
        return ExpiredLeases(leases, None)

    def find(self, names: Container[str]) -> list[Lease]:
        """Return the leases that exist under these names."""
        members: list[bytes] = self.client.zrange(self._keys.leases, 0, -1)  # type: ignore[assignment]  # bytes
        return [lease for member in members if (lease := parse_lease(member)) and lease.name in names]

    def move_due(self, queue: str, limit: int = 500) -> int:
        """Move delayed jobs that are due to the lists of their queue, at most `limit`. Returns their number."""
        return int(self._run(move_due_command(self._keys, queue, limit=limit)))

    def find_delayed(self, queues: Sequence[str]) -> list[str]:
        """Return the queues among these that have delayed jobs."""
        return self._find({queue: [self._keys.delayed(queue)] for queue in queues})

    def find_foreign(self, queues: Sequence[str]) -> list[str]:
        """Return the queues among these with jobs in a foreign list (`Keys.foreign_lists`)."""
        return self._find({queue: [name for name, _ in self._keys.foreign_lists(queue)] for queue in queues})

    def _find(self, names: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the queues of which any of these keys exists. It costs one command where none does."""
        if not names or not self.client.exists(*itertools.chain.from_iterable(names.values())):
            return []
        replies = execute(self.client, Pipeline(tuple(("EXISTS", *keys) for keys in names.values())))
        if errors := [reply for reply in replies if isinstance(reply, Exception)]:
            raise errors[0]
        return [queue for queue, number in zip(names, replies, strict=True) if number]

    def gather(self, queue: str, limit: int) -> int:
        """Move jobs from a queue's foreign lists to its own, at most `limit`. Returns their number."""
        return int(self._run(gather_command(self._keys, queue, limit=limit)))

    def pass_tokens(self, queues: Sequence[str]) -> None:
        """Wake a worker that sleeps, for each of these queues in which jobs wait."""
        self._run(pass_tokens_command(self._keys, queues))

    def unblock(self, client_id: int) -> bool:
        """End the BLMOVE of a connection, given its id at Redis. Returns False if this user may not do so."""
        try:
            self.client.client_unblock(client_id)
        except redis.ResponseError as error:
            log.warning("Redis refuses to end a BLMOVE (%s); permit this user CLIENT UNBLOCK", error)
            return False
        return True

    def uptime_seconds(self) -> float:
        """Return the seconds since Redis started; infinity if this user may not read it."""
        try:
            return float(self.client.info("server")["uptime_in_seconds"])
        except (redis.ResponseError, KeyError):
            return float("inf")

    def reconnect(self) -> None:
        """Close the connections, as their server is no longer a primary. New ones open on demand."""
        self.client.connection_pool.disconnect()
