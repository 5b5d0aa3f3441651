"""The claim loop of one channel: the commands to send to Redis next, and the meaning of their replies.

    IDLE ── claim ──> SENT ── jobs ──────> IDLE: the jobs go to Celery; the next claim when a process is free
                       └──── nothing ───> IDLE, asleep ── a list changed, or the poll ──> claim again
                                                   └───── a lease is parked ──> BLOCKING (BLMOVE)
    IDLE, awake <── a job that arrived, or none in time ───────────────────────────┘

The loop has no connection and knows no kombu: `channel` sends its commands and hands it the replies. Its parts are
`notifications`, which let it sleep, and `blocking_claim`, which waits at Redis.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

import msgspec
import redis

from headrace.connection.errors import is_read_only
from headrace.connection.script_calls import ScriptCall
from headrace.wire.keys import Keys
from headrace_worker.transport.blocking_claim import BlockingClaim
from headrace_worker.transport.claim_script import claim_command, decode_claim
from headrace_worker.transport.claims import Claim, ClaimLimits, IsolatedTurn, Lease, NothingClaimed
from headrace_worker.transport.notifications import QueueNotifications

log = logging.getLogger("headrace.claims")

#: One claim of this many starts with the lowest priority, so that jobs of files are never starved. Every second
#: claim starts with the retried jobs of each priority.
_LOWEST_EVERY = 10
_NEVER = float("inf")


class State(Enum):
    """The state of a claim loop."""

    #: Nothing is sent.
    IDLE = "idle"
    #: A claim is sent, its reply is pending.
    SENT = "sent"
    #: A BLMOVE is sent, its reply is pending.
    BLOCKING = "blocking"


class SentClaim(msgspec.Struct, frozen=True):
    """A claim whose reply is pending."""

    #: The name of its lease.
    name: str
    limits: Sequence[ClaimLimits]
    #: The number of replies that come before that of the claim.
    earlier_replies: int
    #: The function of its script.
    function: str


class ClaimLoop:
    """The claims of one channel.

    `queue_limits` returns the limits of each queue, in the order in which the queues are claimed from now.
    `count_held` returns the number of claims of a queue that this process holds, and `next_name` the name of a new
    lease. `isolated_turn` decides when the next claim takes an isolated job, given whether the last claim was one.
    `wake_after` calls `wake` after a number of seconds. `adopt_orphan` requeues a job under a lease, by its name.
    `clock` is a monotonic clock in seconds.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        lease_seconds: float,
        queue_limits: Callable[[], Sequence[ClaimLimits]],
        count_held: Callable[[str], int],
        isolated_turn: Callable[[bool], IsolatedTurn],
        next_name: Callable[[], str],
        wake_after: Callable[[float], None],
        adopt_orphan: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys, self._lease_ms, self._clock = keys, int(lease_seconds * 1000), clock
        self._queue_limits, self._count_held = queue_limits, count_held
        self._next_name, self._wake_after, self._adopt_orphan = next_name, wake_after, adopt_orphan
        self._isolated_turn = isolated_turn
        #: True if the last claim was an isolated job.
        self._follows_isolated = False
        self.blocking = BlockingClaim(keys, lease_seconds, clock)
        #: When the pending claim or BLMOVE was sent.
        self.sent_at = 0.0
        #: The notifications of the current connection, and those of the pending claim or BLMOVE.
        self._notifications: QueueNotifications | None = None
        self._sent_with: QueueNotifications | None = None
        #: The pending claim, or the lease of the pending BLMOVE.
        self._sent: SentClaim | Lease | None = None
        self._numbers = itertools.count(1)
        self._script_call = ScriptCall()
        self._last_refusal = ""
        #: True if the last claim skipped jobs of which the process holds as many claims as it may: those of a
        #: queue, or isolated ones.
        self.has_skipped_jobs = False
        #: When a queue that fills up has waited long enough, by queue.
        self._fill_until: dict[str, float] = {}

    @property
    def state(self) -> State:
        """The state: what is sent, and its reply pending."""
        if self._sent is None:
            return State.IDLE
        return State.BLOCKING if isinstance(self._sent, Lease) else State.SENT

    @property
    def pending_replies(self) -> int:
        """The number of replies that `receive` takes."""
        if isinstance(self._sent, SentClaim):
            return self._sent.earlier_replies + 1
        return self.blocking.replies if self._sent is not None else 0

    @property
    def blocking_queue(self) -> str | None:
        """The queue of the pending BLMOVE; None if there is none."""
        return self._sent.queue if isinstance(self._sent, Lease) else None

    @property
    def sent_client_id(self) -> int:
        """The id at Redis of the connection with the pending claim or BLMOVE; 0 if Redis does not tell."""
        return self._sent_with.client_id if self._sent_with is not None else 0

    # --- connections ------------------------------------------------------------------------------------

    def connected(self, notifications: QueueNotifications | None) -> None:
        """Claim with the notifications of a new connection; None if they ended."""
        self._notifications = notifications

    def watch(self, queues: Iterable[str]) -> None:
        """Set the queues whose lists wake the loop."""
        if self._notifications is not None:
            self._notifications.watch(self._keys, queues)

    def connection_lost(self) -> dict[str, int]:
        """Return the leases that may hold jobs, as the reply is lost with the connection: orphaned claims.

        By the name of the lease, the id at Redis of the connection whose BLMOVE may still fill it; 0 for none.
        """
        sent, self._sent = self._sent, None
        if sent is None:
            return {}
        orphans = {}
        if (lease := self.blocking.drop()) is not None:
            orphans[lease.name] = self.sent_client_id
        if isinstance(sent, SentClaim):
            orphans[sent.name] = 0
        return orphans

    # --- what to send, and what a reply means -----------------------------------------------------------

    def next_commands(self) -> list[Sequence[Any]]:
        """Return the commands to send now, none while the loop sleeps. It must be idle and connected."""
        assert self._notifications is not None  # noqa: S101  # the channel connects before it sends
        if self._notifications.is_asleep:
            lease = self.blocking.parked_lease()
            return [] if lease is None else self._send(lease, self.blocking.commands(lease))
        limits = self._open_limits(self._clock())
        self._give_up_closed_queue(limits)
        if not limits:
            return []
        parked = self.blocking.offer(limits, self._next_name) if self._notifications.may_sleep else None
        name, isolated_turn = self._next_name(), self._isolated_turn(self._follows_isolated)
        self.has_skipped_jobs = self.has_skipped_jobs or isolated_turn == "never"
        number = next(self._numbers)
        command = claim_command(
            self._keys,
            name,
            limits,
            lease_ms=self._lease_ms,
            lowest_first=number % _LOWEST_EVERY == 0,
            isolated=isolated_turn,
            retried_first=(number + number // _LOWEST_EVERY) % 2 == 0,
            parked=parked,
        )
        commands = self._notifications.commands()
        sent = SentClaim(name, limits, earlier_replies=len(commands), function=str(command.args[1]))
        return self._send(sent, [*commands, command.in_form(self._script_call.form)])

    def _send(self, sent: SentClaim | Lease, commands: list[Sequence[Any]]) -> list[Sequence[Any]]:
        self._sent, self._sent_with, self.sent_at = sent, self._notifications, self._clock()
        return commands

    def _open_limits(self, now: float) -> list[ClaimLimits]:
        """Return the limits of the queues to claim from now: those of which this process may hold more claims."""
        open_limits = []
        self.has_skipped_jobs = False
        for limit in self._queue_limits():
            if limit.claims is not None and self._count_held(limit.queue) >= limit.claims:
                self.has_skipped_jobs = self.has_skipped_jobs or limit.claims > 0
            elif limit.wait and now < self._fill_until.get(limit.queue, _NEVER):
                open_limits.append(msgspec.structs.replace(limit, full_only=True))
            else:
                open_limits.append(limit)
        return open_limits

    def _give_up_closed_queue(self, limits: Sequence[ClaimLimits]) -> None:
        """Give up a lease that was parked at a queue of which nothing is claimed now: a job under it goes back."""
        lease = self.blocking.lease
        if lease is not None and all(limit.queue != lease.queue for limit in limits):
            self.blocking.drop()
            self._adopt_orphan(lease.name)

    def receive(self, replies: Sequence[Any]) -> Claim | None:
        """Process the `pending_replies`; a refusal is a ResponseError among them. The loop is idle again.

        Returns the claim; None if there is none. Raises redis.ConnectionError for a server that is no primary.
        """
        sent, self._sent = self._sent, None
        assert sent is not None  # noqa: S101  # the channel reads replies only if some are pending
        assert self._sent_with is not None  # noqa: S101  # as above
        if isinstance(sent, Lease):
            claim = self.blocking.receive(replies)
            self._sent_with.wake()
            if claim is not None:
                self._record_claim(claim)
            return claim
        *earlier, reply = replies
        self._sent_with.receive(earlier)
        if isinstance(reply, redis.ResponseError):
            self._refuse(reply, sent, self._sent_with)
            return None
        self._script_call.succeeded()
        self._last_refusal = ""
        result = decode_claim(reply, sent.name, sent.limits, self._clock())
        self._sent_with.record_claim(found_jobs=isinstance(result, Claim))
        if isinstance(result, NothingClaimed):
            self.blocking.record_nothing(parked=result.parked, sent_at=self.sent_at)
            self._let_fill(result.filling, sent.limits)
            return None
        self._record_claim(result)
        self._fill_until.pop(result.lease.queue, None)
        return result

    def _record_claim(self, claim: Claim) -> None:
        self.blocking.record_claim(claim)
        self._follows_isolated = claim.lease.is_isolated

    def _refuse(self, reply: redis.ResponseError, sent: SentClaim, notifications: QueueNotifications) -> None:
        error = self._script_call.refused(reply, sent.function)
        if error is None:  # the claim is sent again, in another form
            return
        if is_read_only(error):
            raise redis.ConnectionError(str(error)) from error
        if str(error) != self._last_refusal:
            self._last_refusal = str(error)
            log.error("Redis refuses claims (%s); retrying every poll", error)
        notifications.sleep()

    def _let_fill(self, queues: Sequence[str], limits: Sequence[ClaimLimits]) -> None:
        waits = {limit.queue: limit.wait for limit in limits}
        for queue in queues:
            if queue not in self._fill_until:
                self._fill_until[queue] = self._clock() + waits[queue]
                self._wake_after(waits[queue])

    # --- sleep and wake ---------------------------------------------------------------------------------

    def wake(self) -> None:
        """Claim on the next turn of the event loop. A pending BLMOVE is to be ended."""
        if self._notifications is not None:
            self._notifications.wake()

    def poll(self) -> None:
        """Wake, unless a BLMOVE is pending: it ends by itself as soon."""
        if self.state is not State.BLOCKING:
            self.wake()

    def keys_changed(self, changes: Iterable[set[bytes]]) -> bool:
        """Wake after changed keys, unless they are the list at which a BLMOVE waits. Returns whether it woke.

        `changes` are the keys of each piece that was read; a piece without any wakes too.
        """
        source_key = self.blocking.source_key if self.state is State.BLOCKING else None
        expected = {source_key.encode()} if source_key else None
        is_woken = any(keys != expected for keys in changes)
        if is_woken:
            self.wake()
        return is_woken
