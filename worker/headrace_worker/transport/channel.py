"""kombu's Redis channel with the consuming side replaced: claims under a lease instead of a blocking pop.

    poll tick ─> claim sent ─> reply read ─> one message to Celery ─> ack
                     ^              │
                     └── woken <────┘ nothing waits: sleep until a key of our queues changes, or wait there
                                      for the next job where the last ones came from (`standing`)

The event loop never waits for Redis: a claim is sent on one turn of the loop and read on another, as kombu
does with its BRPOP, whose hooks (`_brpop_start`, `_brpop_read`) these are. A claim is only sent while
`qos.can_consume()`, so with a prefetch of one for each pool process nothing is claimed that no process is
free to run. Publishing, control and events stay kombu's.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from queue import Empty
from typing import Any

import msgspec
import redis
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from headrace.connection.errors import is_read_only
from headrace.wire.dead_letter import malformed_letter
from headrace.wire.keys import Keys, model_name
from headrace_worker.transport.blocking_claim import BlockingClaim
from headrace_worker.transport.claim_script import claim_command, decode_claim
from headrace_worker.transport.claims import Claim, ClaimLimits, Lease, NothingClaimed
from headrace_worker.transport.lease_keeper import silence_timeout
from headrace_worker.transport.message import claim_message
from headrace_worker.transport.notifications import QueueNotifications
from headrace_worker.transport.ordinary_message import decode_ordinary

log = logging.getLogger("headrace.claims")

#: One claim in this many takes the lowest priority first: file batches are never starved.
_LOWEST_EVERY = 10
#: What kombu sets on a channel from the transport options, besides its own.
OPTIONS = ("lease_seconds", "limits_for", "release_on_close", "on_delivered")


def one_by_one(queue: str) -> ClaimLimits:
    """What a claim takes of a queue when nothing else is said."""
    return ClaimLimits(queue=queue)


class SentClaim(msgspec.Struct, frozen=True):
    """A claim, or a wait, whose reply has not been read."""

    name: str
    asks: Sequence[ClaimLimits]
    #: Whose commands went before it, and are answered before it.
    wakeup: QueueNotifications
    #: The lease that stands, for which Redis waits.
    waits: Lease | None = None


class QoS(virtual.QoS):  # type: ignore[misc]  # kombu has no types
    """What Celery has taken and not yet acknowledged. The record that survives us is the lease."""

    def can_consume(self) -> bool:
        """Whether another message is wanted. What a lost connection brought still occupies the pool."""
        within = self.channel.release_on_close or len(self.channel.keeper) < (self.prefetch_count or _LATER)
        return bool(within and super().can_consume())

    def ack(self, delivery_tag: str) -> None:
        """Done with."""
        self.channel.keeper.acknowledge(delivery_tag)
        super().ack(delivery_tag)
        self.channel.on_claim_finished()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give up. With a `cause`, the process that ran the message was lost; without, nothing ran."""
        keeper, message = self.channel.keeper, self._delivered.get(delivery_tag)
        if cause := getattr(message, "cause", None):
            keeper.requeue_isolated(delivery_tag, cause)
        elif requeue:
            keeper.requeue(delivery_tag, behind=True)
        else:
            keeper.discard(delivery_tag)
        super().ack(delivery_tag)
        self.channel.on_claim_finished()


class ClaimingChannel(virtual.Channel):  # type: ignore[misc]  # kombu has no types
    """What our channels have in common; mixed into kombu's channel and its Sentinel one."""

    QoS = QoS
    #: Transport options: seconds a lease lasts; what to ask of a queue; whether closing the channel puts
    #: unfinished claims back (the worker says no: its pool goes on, and it releases when it ends).
    lease_seconds: float = 10.0
    limits_for: Callable[[str], ClaimLimits] = staticmethod(one_by_one)
    release_on_close: bool = True
    #: Another: called when a claim was handed to Celery, which has put it before its pool.
    on_delivered: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._wakeup: QueueNotifications | None = None
        self._sent: SentClaim | None = None
        self._use_eval = False
        self._refusal = ""
        self._handed_over = False
        #: Whether the last claim left a queue out that has as many claims as it may have.
        self._left_out = False
        self._claims = itertools.count(1)
        self._without_ack: set[str] = set()
        #: When (monotonic) a queue that is left to fill up has waited long enough.
        self._filling: dict[str, float] = {}
        super().__init__(*args, **kwargs)
        self.keys = Keys(self.global_keyprefix)
        self.keeper = self.connection.keeper_for(self)
        self._standing = BlockingClaim(self.keys, self.lease_seconds)

    # --- the claim, sent and read ------------------------------------------------------------------

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002  # kombu's signature
        """Send a claim. If the last one found nothing and nothing has changed since: a wait, or nothing."""
        if (
            self._handed_over
        ):  # first let the pool have it: the loop turns again at once, when a process can take it
            self._handed_over = False
            return
        connection = self.client.connection
        wakeup = self._wakeup_for(connection)
        if wakeup.asleep:
            if (lease := self._standing.waiting()) is not None:
                self._send(connection, self._standing.commands(lease), SentClaim(lease.name, (), wakeup, lease))
            return
        asks = self._asks(time.monotonic())
        if not asks:
            return
        standing = self._standing.offered(asks, self.keeper.next_name) if wakeup.may_sleep else None
        name = self.keeper.next_name()
        command = claim_command(
            self.keys,
            name,
            asks,
            lease_ms=self.keeper.lease_ms,
            lowest_first=next(self._claims) % _LOWEST_EVERY == 0,
            parked=standing,
        )
        commands = [*wakeup.commands(), command.with_source if self._use_eval else command.args]
        self._send(connection, commands, SentClaim(name, asks, wakeup))

    def _send(self, connection: Any, commands: Sequence[Sequence[Any]], sent: SentClaim) -> None:
        self._sent = sent
        self._in_poll = connection
        self._brpop_sent_at = time.monotonic()
        connection.send_packed_command(connection.pack_commands(commands))

    def _wakeup_for(self, connection: Any) -> QueueNotifications:
        if self._wakeup is None or not self._wakeup.belongs_to(connection):
            self._drop_wakeup()
            self._wakeup = QueueNotifications(self, connection)
            self._wakeup.watch(self.keys, self.active_queues)
        return self._wakeup

    def _asks(self, now: float) -> list[ClaimLimits]:
        """What to ask for now, in the fair order of the queues."""
        asks = [self.limits_for(queue) for queue in self._queue_cycle.consume(len(self.active_queues))]
        open_ = [ask for ask in asks if ask.claims is None or self.keeper.of_queue(ask.queue) < ask.claims]
        self._left_out = any(ask.claims for ask in asks if ask not in open_)
        return [
            msgspec.structs.replace(
                ask,
                full_only=bool(ask.wait) and now < self._filling.get(ask.queue, _LATER),
                leased=ask.queue not in self._without_ack,
            )
            for ask in open_
        ]

    def _brpop_read(self, **_: Any) -> bool:
        """Read the reply to a claim, and hand what was claimed to Celery as one message."""
        waited = self._waits is not None
        got = self._read_sent()
        if isinstance(got, NothingClaimed):
            if waited and self.qos.can_consume():
                self._brpop_start()  # claim now: the loop's next turn takes a while to come
            raise Empty
        self._queue_cycle.rotate(got.lease.queue)
        if got.lease.holds_jobs:
            self._hand_over(got)
        else:
            self._hand_over_ordinary(got)
        return True

    def _read_sent(self) -> Claim | NothingClaimed:
        """The reply to what was sent: after a wait for nothing, as to a claim that found nothing."""
        connection, sent = self.client.connection, self._sent
        if sent is None:
            raise Empty
        try:
            if sent.waits:
                return self._read_wait(connection, sent.wakeup)
            sent.wakeup.read_replies(connection)
            reply = connection.read_response()
        except redis.exceptions.NoScriptError:
            self._use_eval = True  # send the text this once: Redis keeps it
            raise Empty from None
        except redis.ResponseError as error:
            self._refused(error, sent.wakeup)
            raise Empty from None
        except self.connection_errors:
            connection.disconnect()
            raise
        finally:
            self._in_poll = self._sent = None
            self._flush_brpop_reauth()
        self._use_eval, self._refusal = False, ""
        got = decode_claim(reply, sent.name, sent.asks, time.monotonic())
        sent.wakeup.record_claim(isinstance(got, Claim))
        if isinstance(got, NothingClaimed):
            self._standing.is_parked(got.parked, self._brpop_sent_at)
            self._let_fill(got.filling, {ask.queue: ask for ask in sent.asks})
        else:
            self._standing.record_claim(got)
            self._filling.pop(got.lease.queue, None)
        return got

    def _read_wait(self, connection: Any, wakeup: QueueNotifications) -> Claim | NothingClaimed:
        got = self._standing.read(connection)
        wakeup.wake()
        if got is None:
            return NothingClaimed(())
        self._standing.record_claim(got)
        return got

    def _refused(self, error: redis.ResponseError, wakeup: QueueNotifications) -> None:
        if is_read_only(error):  # connect anew, to the one that is primary now
            raise redis.ConnectionError(str(error)) from error
        if str(error) != self._refusal:
            self._refusal = str(error)
            log.error("Redis refuses claims, will go on trying: %s", error)  # Redis says it all
        wakeup.pause()

    def _on_connection_disconnect(self, connection: Any) -> None:
        """The reply to a claim that was made may be lost with the connection: its jobs go back."""
        if (sent := self._sent) is not None and connection is self._in_poll:
            self._sent = None
            if lease := self._standing.drop():
                self.keeper.adopt_orphan(lease.name, sent.wakeup.client_id)
            if not sent.waits:
                self.keeper.adopt_orphan(sent.name)
        super()._on_connection_disconnect(connection)

    def drop_if_silent(self) -> None:
        """Give up a connection that does not answer."""
        connection = self._in_poll
        patience = silence_timeout(self.lease_seconds)
        if connection and time.monotonic() - self._brpop_sent_at > patience:
            sock = connection._sock  # noqa: SLF001  # as kombu does
            if sock is not None and not kombu_redis._socket_readable(sock):  # noqa: SLF001  # kombu's own check
                log.warning("Redis has not answered a claim for %.0f s; connecting anew", patience)
                connection.disconnect()

    def _let_fill(self, queues: Sequence[str], asks: dict[str, ClaimLimits]) -> None:
        now = time.monotonic()
        for queue in queues:
            if queue not in self._filling:
                self._filling[queue] = now + asks[queue].wait
                self.connection.call_later(asks[queue].wait, self.wake)

    def _hand_over(self, claim: Claim) -> None:
        self.keeper.hold(claim)
        self._handed_over = self.connection.in_event_loop
        ask = self.limits_for(claim.lease.queue)
        message = claim_message(msgspec.structs.replace(claim, route=ask.route), ask.time_limits)
        self.connection._deliver(message, claim.lease.queue)  # noqa: SLF001  # as kombu does
        self.on_delivered()

    def _hand_over_ordinary(self, claim: Claim) -> None:
        message = self._ordinary(claim)
        if message is not None:
            self.connection._deliver(message, claim.lease.queue)  # noqa: SLF001  # as kombu does

    def _ordinary(self, claim: Claim, no_ack: bool | None = None) -> dict[str, Any] | None:
        """An ordinary task's message as it is, but for its delivery tag; None for what is no message."""
        lease, frame = claim.lease, claim.queued_messages[0]
        leased = not (lease.queue in self._without_ack if no_ack is None else no_ack)
        try:
            message = decode_ordinary(frame, lease.name)
        except (ValueError, KeyError, TypeError) as error:
            log.error(  # noqa: TRY400  # a traceback would quote the message
                "a message of %s is no Celery message; it is a dead letter now", lease.queue
            )
            worker = self.keeper.owner.partition("/")[0]
            malformed = malformed_letter(frame, error, queue=lease.queue, worker=worker)
            self.keeper.commands.store_dead_letter(malformed, frame, lease if leased else None)
            return None
        if leased:
            self.keeper.hold(claim)
        return message

    # --- sleep and wake ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Claim on the next turn of the loop."""
        if self._wakeup:
            self._wakeup.wake()
        self._end_wait()

    def look(self) -> None:
        """Claim, as the slow poll does. A wait is over by itself as soon."""
        if self._wakeup and not self._waits:
            self._wakeup.wake()

    @property
    def _waits(self) -> Lease | None:
        return self._sent.waits if self._sent is not None else None

    def _end_wait(self) -> None:
        """Have Redis answer a wait now."""
        if self._sent is None or not self._sent.waits:
            return
        try:
            if not self.keeper.commands.unblock(self._sent.wakeup.client_id):
                self._standing.pause()
        except redis.RedisError as error:
            log.debug("a wait at Redis ends by itself: %s", error)

    def on_claim_finished(self) -> None:
        """A claim has ended: a process is free, and there may be room for one of a queue that was left out."""
        self._handed_over = False
        if self._left_out:
            self.wake()

    def on_wake_readable(self) -> None:
        """The listener has something to say."""
        if self._wakeup is None:
            return
        try:
            woken = self._wakeup.on_readable(self._standing.source if self._waits else None)
        except self.connection_errors:
            self._drop_wakeup()  # the next claim makes another
            woken = True
        if woken:
            self._end_wait()

    def _drop_wakeup(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None:
            wakeup.close()

    # --- kombu's channel, where it would pop, record or restore in its own way -----------------------

    def basic_consume(self, queue: str, no_ack: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue; without acknowledgements, its messages are taken without a lease."""
        (self._without_ack.add if no_ack else self._without_ack.discard)(queue)
        consumer = super().basic_consume(queue, no_ack, *args, **kwargs)
        self._watch_queues()
        return consumer

    def _basic_cancel(self, consumer_tag: str) -> Any:
        cancelled = super()._basic_cancel(consumer_tag)
        self._watch_queues()
        if not self.active_queues or (self._waits and self._waits.queue not in self.active_queues):
            self._give_back_sent()
        return cancelled

    def _give_back_sent(self) -> None:
        """Nobody takes what the last claim found any more, nor what may yet come."""
        if self._in_poll:
            self._end_wait()
            with contextlib.suppress(Empty, *self.connection_errors):
                if isinstance(got := self._read_sent(), Claim):
                    self.keeper.adopt_orphan(got.lease.name)
        if lease := self._standing.drop():
            self.keeper.adopt_orphan(lease.name)

    def _watch_queues(self) -> None:
        queues = self.active_queues
        if not self._without_ack.issuperset(queues):  # a consumer of replies has no lease to renew
            self.keeper.watch(queue for queue in queues if model_name(queue))
        if self._wakeup:
            self._wakeup.watch(self.keys, queues)

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Any:
        """One message of an ordinary queue, or None."""
        ask = ClaimLimits(queue=queue, leased=not no_ack)
        got = self.keeper.commands.claim(self.keeper.next_name(), [ask], lease_ms=self.keeper.lease_ms)
        payload = None if isinstance(got, NothingClaimed) else self._ordinary(got, no_ack)
        if payload is None:
            return None
        message = self.Message(payload, channel=self)
        if not no_ack:
            self.qos.append(message, message.delivery_tag)
        return message

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: ARG002  # kombu's signature
        self.keeper.requeue(message.delivery_tag)

    def close(self) -> None:
        """Close the channel; unfinished messages go back unless the owner of the transport sees to them."""
        if not self.release_on_close and self._qos is not None:
            self._qos.restore_at_shutdown = False
        self._give_back_sent()
        self._drop_wakeup()
        super().close()


#: No moment comes after this.
_LATER = float("inf")


class Channel(ClaimingChannel, kombu_redis.Channel):  # type: ignore[misc]  # kombu has no types
    """A channel to one Redis."""

    from_transport_options = kombu_redis.Channel.from_transport_options + OPTIONS


class SentinelChannel(ClaimingChannel, kombu_redis.SentinelChannel):  # type: ignore[misc]  # kombu has no types
    """A channel to the primary that Sentinel names."""

    from_transport_options = kombu_redis.SentinelChannel.from_transport_options + OPTIONS
