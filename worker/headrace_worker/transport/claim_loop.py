"""The claim loop of one channel: the commands to send to Redis next, and the meaning of their replies.

    IDLE ── claim ──> SENT ── jobs ──────> IDLE: the jobs go to Celery; the next claim when a process is free
                       └──── nothing ───> IDLE, asleep ── a list changed ──> claim from its queue
                                                   ├───── the poll ───────> look whether anything waits
                                                   └───── a lease is parked ──> BLOCKING (BLMOVE)
    IDLE, awake <── a job that arrived, or none in time ───────────────────────────┘

A claim of all queues costs Redis some commands for each. So an idle worker claims only from the queues whose lists
changed, and its poll is a look: one command over all lists. All queues follow if the look finds something.

The loop has no connection and knows no kombu: `channel` sends its commands and hands it the replies. Its parts are
`notifications`, which let it sleep, and `blocking_claim`, which waits at Redis.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import redis

from headrace.connection.errors import is_read_only
from headrace.wire.keys import Keys
from headrace_worker.transport.blocking_claim import BlockingClaim
from headrace_worker.transport.changed_queues import ChangedQueues
from headrace_worker.transport.claim_commands import ClaimCommands
from headrace_worker.transport.claim_script import decode_claim
from headrace_worker.transport.claim_states import Sent, SentBlocking, SentClaim, SentLook, SentWait, State, Step
from headrace_worker.transport.claims import Claim, ClaimLimits, IsolatedTurn, Lease, NothingClaimed
from headrace_worker.transport.notifications import LOOK_SECONDS, QueueNotifications
from headrace_worker.transport.open_queues import OpenQueues
from headrace_worker.transport.watch import Watch

log = logging.getLogger("headrace.claims")

#: Seconds for which retried jobs are left to another worker.
_LEAVE_SECONDS = 0.1


class ClaimLoop:
    """The claims of one channel.

    `queue_limits` returns the limits of each queue, in the order in which the queues are claimed from now.
    `count_held` returns the number of claims of a queue that this process holds, and `next_name` the name of a new
    lease. `isolated_turn` decides when the next claim takes an isolated job, given whether the last claim was one.
    `wake_after` calls `wake` after a number of seconds. `adopt_orphan` requeues a job under a lease, by its name.
    `watch` decides which idle worker listens. `clock` is a monotonic clock in seconds.
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
        watch: Watch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys, self._lease_ms, self._clock = keys, int(lease_seconds * 1000), clock
        self._open = OpenQueues(queue_limits, count_held, wake_after, clock)
        self._next_name, self._adopt_orphan, self._wake_after = next_name, adopt_orphan, wake_after
        self._isolated_turn, self._watch = isolated_turn, watch
        #: True if the last claim was an isolated job; True if it left isolated jobs to others.
        self._follows_isolated = self._skips_isolated = False
        self.blocking = BlockingClaim(keys, lease_seconds, clock)
        #: When the pending claim or BLMOVE was sent.
        self.sent_at = 0.0
        #: The notifications of the current connection, and those of the pending claim or BLMOVE.
        self._notifications: QueueNotifications | None = None
        self._sent_with: QueueNotifications | None = None
        self._sent: Sent | None = None
        self._step = Step.CLAIM_ALL
        self._changed = ChangedQueues(keys)
        #: When a loop that sleeps looks whether anything waits.
        self._look_at = 0.0
        self._claim_commands = ClaimCommands(keys, self._lease_ms, next_name)
        self._last_refusal = ""

    @property
    def has_skipped_jobs(self) -> bool:
        """True if the last claim skipped jobs of which the process holds as many claims as it may."""
        return self._open.has_skipped_jobs or self._skips_isolated

    @property
    def state(self) -> State:
        """The state: what is sent, and its reply pending."""
        return self._sent.state if self._sent is not None else State.IDLE

    @property
    def wait_seconds(self) -> float:
        """The seconds for which Redis may keep the pending reply back."""
        return self._sent.seconds if self._sent is not None else 0.0

    @property
    def pending_replies(self) -> int:
        """The number of replies that `receive` takes."""
        return self._sent.replies if self._sent is not None else 0

    @property
    def blocking_queue(self) -> str | None:
        """The queue of the pending BLMOVE; None if there is none."""
        return self._sent.lease.queue if isinstance(self._sent, SentBlocking) else None

    @property
    def sent_client_id(self) -> int:
        """The id at Redis of the connection with the pending claim or BLMOVE; 0 if Redis does not tell."""
        return self._sent_with.client_id if self._sent_with is not None else 0

    def connected(self, notifications: QueueNotifications | None) -> None:
        """Claim with the notifications of a new connection; None if they ended."""
        self._notifications = notifications
        if notifications is not None and self._watch.is_held:
            notifications.listen()
        self._step = Step.CLAIM_ALL

    def watch(self, queues: Iterable[str]) -> None:
        """Set the queues whose lists wake the loop."""
        queues = tuple(queues)
        self._watch.set_queues(queues)
        self._changed.watch(queues)
        self._step = Step.CLAIM_ALL
        if self._notifications is not None:
            self._notifications.watch(self._keys, queues)
            if self._watch.is_held:
                self._notifications.listen()

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
        claim = sent.claim if isinstance(sent, SentLook) else sent
        if isinstance(claim, SentClaim):
            orphans[claim.name] = 0
        return orphans

    # --- what to send, and what a reply means -----------------------------------------------------------

    def next_commands(self) -> list[Sequence[Any]]:
        """Return the commands to send now, none while the loop sleeps. It must be idle and connected."""
        notifications = self._notifications
        assert notifications is not None  # noqa: S101  # the channel connects before it sends
        if notifications.is_asleep:
            if self._watch.is_sleeping:
                return self._send_wait(self._open.limits(), notifications)
            lease = self.blocking.parked_lease()
            if lease is None:
                return []
            if self._clock() < self._look_at:
                commands = self.blocking.commands(lease)
                return self._send(SentBlocking(lease, self.blocking.seconds, len(commands)), commands)
        limits = self._open.limits()
        if (closed := self.blocking.drop_closed(limits)) is not None:
            self._adopt_orphan(closed.name)  # a job under it goes back
        if not limits:
            return []
        if self._step is Step.CLAIM_ALL:
            return self._send_claim(limits, notifications)
        if changed := self._changed.select(limits, self.blocking.lease):
            return self._send_claim(changed, notifications)
        if self._step is Step.CLAIM_CHANGED_THEN_ALL:
            self._step = Step.CLAIM_ALL
            return self._send_claim(limits, notifications)
        return self._send_look(limits, notifications)

    def _send_claim(self, limits: Sequence[ClaimLimits], notifications: QueueNotifications) -> list[Sequence[Any]]:
        parked = self._offer(limits, notifications)
        # A worker that is never idle listens to nothing, so it cannot watch for others.
        resigning = self._watch.resign_commands() if notifications.is_busy else []
        tracking = notifications.commands(listens=not self._watch.is_sleeping)
        sent, claiming = self._make_claim(limits, parked, earlier_replies=len(resigning) + len(tracking))
        sent = msgspec.structs.replace(sent, ignored_replies=len(resigning))
        return self._send(sent, [*resigning, *tracking, *claiming])

    def _send_look(self, limits: Sequence[ClaimLimits], notifications: QueueNotifications) -> list[Sequence[Any]]:
        """Ask with one command whether anything waits; a lease is parked by a claim of its queue."""
        lease = self._offer(limits, notifications)
        takes_watch = not self._watch.listens
        commands = notifications.commands(listens=not takes_watch)
        earlier_replies, claim = len(commands), None
        # A server that is no primary any more refuses the first. PERSIST changes nothing.
        commands += [
            self._watch.take_command() if takes_watch else ("PERSIST", self._keys.leases),
            ("EXISTS", *(name for limit in limits for name in self._keys.sources(limit.queue))),
        ]
        if lease is not None and self.blocking.parked_lease() is None:
            of_lease = [limit for limit in limits if limit.queue == lease.queue]
            claim, claiming = self._make_claim(of_lease, lease, earlier_replies=0)
            commands += claiming
        return self._send(SentLook(earlier_replies, takes_watch, claim), commands)

    def _send_wait(self, limits: Sequence[ClaimLimits], notifications: QueueNotifications) -> list[Sequence[Any]]:
        """Wait until another worker wakes this one."""
        if not limits:
            return []
        commands, seconds = notifications.commands(listens=False), self._watch.wait_seconds()
        queues = [limit.queue for limit in limits]
        by_key = {self._keys.tokens(queue).encode(): queue for queue in queues}
        return self._send(
            SentWait(len(commands), seconds, by_key), [*commands, self._watch.wait_command(queues, seconds)]
        )

    def _offer(self, limits: Sequence[ClaimLimits], notifications: QueueNotifications) -> Lease | None:
        """Return the lease to park if nothing is claimed. A worker that does not listen parks none."""
        may_park = self.blocking.lease is not None or self._watch.listens
        return self.blocking.offer(limits, self._next_name) if may_park and notifications.may_sleep else None

    def _make_claim(
        self, limits: Sequence[ClaimLimits], parked: Lease | None, *, earlier_replies: int
    ) -> tuple[SentClaim, list[Sequence[Any]]]:
        """Return a claim of these queues, and its commands."""
        isolated_turn = self._isolated_turn(self._follows_isolated)
        self._skips_isolated = isolated_turn == "never"
        tokens = self._watch.is_shared and self._watch.has_others
        return self._claim_commands.make(
            limits, parked, isolated_turn, tokens=tokens, earlier_replies=earlier_replies
        )

    def _send(self, sent: Sent, commands: list[Sequence[Any]]) -> list[Sequence[Any]]:
        self._sent, self._sent_with, self.sent_at = sent, self._notifications, self._clock()
        return commands

    def receive(self, replies: Sequence[Any]) -> Claim | None:
        """Process the `pending_replies`; a refusal is a ResponseError among them. The loop is idle again.

        Returns the claim; None if there is none. Raises redis.ConnectionError for a server that is no primary.
        """
        sent, self._sent = self._sent, None
        assert sent is not None  # noqa: S101  # the channel reads replies only if some are pending
        assert self._sent_with is not None  # noqa: S101  # as above
        if isinstance(sent, SentBlocking):
            return self._receive_blocking(replies, self._sent_with)
        if isinstance(sent, SentLook):
            return self._receive_look(sent, replies, self._sent_with)
        if isinstance(sent, SentWait):
            self._receive_token(sent, replies, self._sent_with)
            return None
        *earlier, reply, messages = replies
        self._receive_tracking(earlier[sent.ignored_replies :], self._sent_with)
        claim = self._receive_claim(sent, reply, messages, self._sent_with)
        if claim is None and not isinstance(reply, redis.ResponseError):
            self._changed.record_nothing(sent.limits, skips_jobs=self.has_skipped_jobs)
            if self._step is Step.CLAIM_CHANGED_THEN_ALL:
                self._step = Step.CLAIM_ALL
            else:
                self._step = Step.CLAIM_CHANGED
                self._rest(self._sent_with)
        return claim

    def _receive_tracking(self, replies: Sequence[Any], notifications: QueueNotifications) -> None:
        notifications.receive(replies)
        if notifications.is_refused:  # who is told of nothing cannot watch
            self._watch.refuse(None)

    def _rest(self, notifications: QueueNotifications) -> None:
        """Sleep as far as the notifications allow it: nothing waits that this worker may claim."""
        notifications.record_claim(found_jobs=False, listens=not self._watch.is_sleeping)
        self._look_at = self._clock() + LOOK_SECONDS

    def _receive_claim(
        self, sent: SentClaim, reply: Any, messages: Any, notifications: QueueNotifications
    ) -> Claim | None:
        if isinstance(reply, redis.ResponseError):
            self._refuse(reply, sent, notifications)
            return None
        self._claim_commands.script_call.succeeded()
        self._last_refusal = ""
        result = decode_claim(reply, messages, sent.name, sent.limits, self._clock())
        if isinstance(result, NothingClaimed):
            if result.is_lost:
                self._adopt_orphan(sent.name)
            self.blocking.record_nothing(parked=result.parked, sent_at=self.sent_at)
            self._open.let_fill(result.filling, sent.limits)
            return None
        notifications.record_claim(found_jobs=True)
        self._record_claim(result)
        self._open.record_claim(result.lease.queue)
        # More may wait behind a full claim, or one of several jobs: under load no look comes before a claim.
        limits = next(limit for limit in sent.limits if limit.queue == result.lease.queue)
        jobs = len(result.queued_messages)
        self._step = Step.CLAIM_ALL if jobs > 1 or jobs >= limits.jobs else Step.CLAIM_CHANGED
        self._changed.record_claim(result.lease.queue, sent.limits)
        if result.is_queue_empty and self._is_told_of_all(sent, notifications):
            self._rest(notifications)
        return result

    def _is_told_of_all(self, sent: SentClaim, notifications: QueueNotifications) -> bool:
        """Decide whether a look after a claim that emptied its queue would tell nothing new."""
        if self._step is not Step.CLAIM_CHANGED:
            return False
        may_park = self._offer(sent.limits, notifications) is not None  # a look parks the lease
        return notifications.is_on and self._changed.is_clear and not self.has_skipped_jobs and not may_park

    def _receive_look(
        self, sent: SentLook, replies: Sequence[Any], notifications: QueueNotifications
    ) -> Claim | None:
        self._receive_tracking(replies[: sent.earlier_replies], notifications)
        written, waiting, *of_claim = replies[sent.earlier_replies :]
        if isinstance(written, redis.ResponseError) and is_read_only(written):
            raise redis.ConnectionError(str(written)) from written
        if sent.takes_watch:
            self._watch.receive_take(written)
            if self._watch.is_held:
                notifications.listen()
            if self._watch.is_sleeping and (lease := self.blocking.drop()) is not None:
                self._adopt_orphan(lease.name)
        if sent.claim is not None:
            reply, messages = of_claim
            claim = self._receive_claim(sent.claim, reply, messages, notifications)
            if claim is not None or isinstance(reply, redis.ResponseError):
                return claim
        if waiting != 0:  # or Redis refuses to tell
            self._step = Step.CLAIM_CHANGED_THEN_ALL  # most often it is what this worker was told of meanwhile
            notifications.wake()
        else:
            self._changed.clear()
            self._rest(notifications)
        return None

    def _receive_token(self, sent: SentWait, replies: Sequence[Any], notifications: QueueNotifications) -> None:
        *earlier, reply = replies
        notifications.receive(earlier)
        if isinstance(reply, redis.ResponseError):
            if is_read_only(reply) or str(reply).startswith("UNBLOCKED"):  # by a failover
                raise redis.ConnectionError(str(reply)) from reply
            self._watch.refuse(reply)
        elif reply is not None and (queue := sent.queues.get(reply[0])):
            self._changed.add(queue)
        notifications.wake()

    def _receive_blocking(self, replies: Sequence[Any], notifications: QueueNotifications) -> Claim | None:
        claim = self.blocking.receive(replies)
        if claim is not None:
            self._record_claim(claim)
            self._step = Step.CLAIM_CHANGED
            notifications.wake()
        elif self.blocking.must_claim:
            self._step = Step.CLAIM_ALL
            notifications.wake()
        elif self.blocking.parked_lease() is None:  # it is time to park it again
            notifications.wake()
        return claim

    def _record_claim(self, claim: Claim) -> None:
        self.blocking.record_claim(claim)
        self._follows_isolated = claim.lease.is_isolated

    def _refuse(self, reply: redis.ResponseError, sent: SentClaim, notifications: QueueNotifications) -> None:
        error = self._claim_commands.script_call.refused(reply, sent.function)
        if error is None:  # the claim is sent again, in another form
            return
        if is_read_only(error):
            raise redis.ConnectionError(str(error)) from error
        if str(error) != self._last_refusal:
            self._last_refusal = str(error)
            log.error("Redis refuses claims (%s); retrying every poll", error)
        self._step, self._look_at = Step.CLAIM_ALL, 0.0
        notifications.sleep()

    # --- sleep and wake ---------------------------------------------------------------------------------

    def wake(self) -> None:
        """Claim from all queues on the next turn of the event loop. A pending BLMOVE is to be ended."""
        self._step = Step.CLAIM_ALL
        if self._notifications is not None:
            self._notifications.wake()

    def poll(self) -> None:
        """Look on the next turn of the event loop, if it is time to. A pending BLMOVE ends by itself as soon."""
        notifications = self._notifications
        if notifications is None or self.state in {State.BLOCKING, State.WAITING} or self._watch.is_sleeping:
            return
        if self._clock() >= self._look_at or notifications.is_refused:
            notifications.wake()

    def mark_unclaimed(self) -> bool:
        """Mark the queues in which jobs may wait that are not claimed yet. Returns whether there are any."""
        return self._changed.mark_unclaimed()

    def take_marked(self, *, can_claim: bool) -> set[str]:
        """Return the marked queues from which this worker does not claim now, to wake another one.

        `can_claim` is False if all its processes are busy.
        """
        return self._changed.take_marked(self._open.limits() if can_claim else [])

    def keys_changed(self, changes: Iterable[set[bytes]]) -> bool:
        """Wake after changed keys, unless they are the list at which a BLMOVE waits. Returns whether it woke.

        `changes` are the keys of each piece that was read; a piece without any wakes too.
        """
        source_key = self.blocking.source_key if self.state is State.BLOCKING else None
        expected = {source_key.encode()} if source_key else None
        changes = [keys for keys in changes if keys != expected]
        changed = set().union(*changes)
        if changed and self._changed.are_retried(changed) and self._watch.leaves_retried_jobs():
            self._changed.leave(changed)
            self._wake_after(_LEAVE_SECONDS)  # in case that no other worker is idle
            return False
        self._changed.record_keys(changed)
        if changes and self._notifications is not None:
            self._notifications.wake()
        return bool(changes)
