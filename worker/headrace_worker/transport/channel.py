"""kombu's Redis channel, consuming by claims under a lease instead of a blocking pop.

It is an adapter: `claim_loop` decides what to send and what a reply means, and the channel does the I/O in the
hooks kombu has for its BRPOP (`_brpop_start`, `_brpop_read`). The event loop never waits for Redis: a claim is
sent on one turn, and its reply is read on another. kombu starts one only while `qos.can_consume()`. With a
prefetch of one for each pool process, nothing is claimed that no process is free to run. Publishing, control and
events stay kombu's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from queue import Empty
from typing import Any

import msgspec
import redis
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from headrace.clock import utc_now
from headrace.connection.cluster_celery import ClusterPools
from headrace.connection.commands import execute, run
from headrace.connection.errors import is_wrong_type
from headrace.results.purge import QueuePurge
from headrace.wire.dead_letter import malformed_letter
from headrace.wire.keys import Keys
from headrace.wire.queues import model_name
from headrace_worker.transport.claim_loop import ClaimLoop
from headrace_worker.transport.claim_states import State
from headrace_worker.transport.claims import (
    Claim,
    ClaimLimits,
    IsolatedTurn,
    NothingClaimed,
    choose_isolated_turn,
)
from headrace_worker.transport.lease_keeper import silence_timeout
from headrace_worker.transport.listener import NotificationListener
from headrace_worker.transport.message import Message, claim_message
from headrace_worker.transport.notifications import QueueNotifications
from headrace_worker.transport.ordinary_message import RefusedMessage, decode_ordinary
from headrace_worker.transport.qos import QoS

log = logging.getLogger("headrace.claims")

#: Seconds for which a job waits for this worker before another one is woken. A client that has an outcome may
#: submit the next job before the pool process of the first is free again.
_WAKE_OTHERS_SECONDS = 0.003
#: The transport options that kombu sets as attributes of a channel, besides its own.
OPTIONS = ("lease_seconds", "limits_for", "requeue_on_close", "give_up", "on_delivered", "result_ttl")


class ClaimingChannel(virtual.Channel):  # type: ignore[misc]  # kombu has no types
    """The channel without its connection to Redis; mixed into kombu's channel and its variants."""

    QoS = QoS
    Message = Message
    #: Transport option: seconds until a lease expires, unless it is renewed.
    lease_seconds: float = 10.0
    #: Transport option: the limits of a claim of a queue. Without it, messages are claimed one by one.
    limits_for: Callable[[str], ClaimLimits] = staticmethod(lambda queue: ClaimLimits(queue=queue))
    #: Transport option: requeue unfinished claims when the channel closes. A worker sets it to False, as its pool
    #: goes on after a lost connection, and requeues them when it ends.
    requeue_on_close: bool = True
    #: Transport option: gives up the isolated job of a claim, if no pool process can. Returns whether it did.
    give_up: Callable[[Claim], bool] = staticmethod(lambda _claim: False)
    #: Transport option: seconds for which the outcomes of purged jobs are stored.
    result_ttl: int = 86_400
    #: Transport option: called after a claim was delivered to Celery, which has sent it to its pool.
    on_delivered: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The connection with notifications of new jobs; None until the first claim.
        self._listener: NotificationListener | None = None
        self._is_delivering = False
        #: True while others are about to be woken.
        self._wakes_others = False
        self._without_ack: set[str] = set()
        super().__init__(*args, **kwargs)
        self.keys = Keys(self.global_keyprefix)
        self.keeper = self.connection.keeper_for(self)
        self._watch = self.keeper.open_watch()
        self._claims = ClaimLoop(
            self.keys,
            lease_seconds=self.lease_seconds,
            queue_limits=self._queue_limits,
            count_held=self.keeper.count,
            isolated_turn=self._isolated_turn,
            next_name=self.keeper.next_name,
            wake_after=lambda seconds: self.connection.call_later(seconds, self.wake),
            adopt_orphan=self.keeper.adopt_orphan,
            watch=self._watch,
        )

    # --- kombu's hooks: send a claim, read its reply ----------------------------------------------------

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002  # kombu's signature
        """Send what the claim loop wants to send, if anything."""
        if self._is_delivering:  # first let the pool have the claim: the loop turns again at once
            self._is_delivering = False
            return
        connection = self.client.connection
        self._listen(connection)
        if commands := self._claims.next_commands():
            self._in_poll, self._brpop_sent_at = connection, self._claims.sent_at
            connection.send_packed_command(connection.pack_commands(commands))

    def _queue_limits(self) -> list[ClaimLimits]:
        """Return the limits of the queues, in the order in which kombu's strategy takes from them."""
        limits = []
        for queue in self._queue_cycle.consume(len(self.active_queues)):
            limit = self.limits_for(queue)
            limits.append(msgspec.structs.replace(limit, leased=False) if queue in self._without_ack else limit)
        return limits

    def _isolated_turn(self, follows_isolated: bool) -> IsolatedTurn:
        # A worker's prefetch is one claim for each pool process.
        return choose_isolated_turn(
            processes=self.qos.prefetch_count or 0,
            isolated=self.keeper.count_isolated(),
            follows_isolated=follows_isolated,
        )

    def _brpop_read(self, **_: Any) -> bool:
        """Read the reply to a claim, and deliver what was claimed to Celery as one message."""
        was_blocking = self._claims.state in {State.BLOCKING, State.WAITING}
        claim = self._read_claim()
        if claim is None:
            if self._claims.has_skipped_jobs:
                self._wake_others()
            if was_blocking and self.qos.can_consume():
                self._brpop_start()  # claim now: the next turn of the event loop takes a while to come
            raise Empty
        self._queue_cycle.rotate(claim.lease.queue)
        if claim.lease.holds_jobs:
            self._deliver_jobs(claim)
        else:
            self._deliver_ordinary(claim)
        return True

    def _read_claim(self) -> Claim | None:
        connection = self.client.connection
        if self._claims.state is State.IDLE:
            return None
        try:
            replies = [_read_reply(connection) for _ in range(self._claims.pending_replies)]
            return self._claims.receive(replies)
        except self.connection_errors:
            connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _deliver_jobs(self, claim: Claim) -> None:
        limits = self.limits_for(claim.lease.queue)
        if limits.claims == 0:  # the model was paused while the worker waited at Redis
            self.keeper.adopt_orphan(claim.lease.name)
            return
        if claim.lease.is_isolated and self.give_up(claim):
            return
        self.keeper.hold(claim)
        self._is_delivering = self.connection.in_event_loop
        time_limits = limits.time_limits_of(claim.lease)
        message = claim_message(msgspec.structs.replace(claim, route=limits.route), time_limits)
        self.connection._deliver(message, claim.lease.queue)  # noqa: SLF001  # as kombu does
        self.on_delivered()
        self._wake_others()

    def _deliver_ordinary(self, claim: Claim) -> None:
        message = self._ordinary_message(claim, leased=claim.lease.queue not in self._without_ack)
        if message is not None:
            self.connection._deliver(message, claim.lease.queue)  # noqa: SLF001  # as kombu does

    def _ordinary_message(self, claim: Claim, *, leased: bool) -> dict[str, Any] | None:
        """Return the message of an ordinary task as Celery takes it.

        None for a message that is refused: its bytes become a dead letter. `leased` is False if the queue is
        consumed without acknowledgements.
        """
        lease, queued_message = claim.lease, claim.queued_messages[0]
        try:
            message = decode_ordinary(queued_message, lease.name)
        except RefusedMessage as error:
            log.error(  # noqa: TRY400  # a traceback would quote the message
                "refused a message of %s, stored as a dead letter: %s", lease.queue, error
            )
            worker = self.keeper.owner.partition("/")[0]
            letter = malformed_letter(queued_message, error, queue=lease.queue, worker=worker)
            self.keeper.commands.store_dead_letter(letter, queued_message, lease if leased else None)
            return None
        if leased:
            self.keeper.hold(claim)
        return message

    # --- notifications: sleep and wake ------------------------------------------------------------------

    def _listen(self, connection: Any) -> None:
        """Have a listener for the socket that this connection has now."""
        if self._listener is not None and self._listener.belongs_to(connection):
            return
        self._stop_listening()
        self._listener = listener = NotificationListener(connection, self.pool)
        if listener.fd is not None:
            self.connection.cycle.add_listener(listener.fd, listener.socket, self)
        notifications = QueueNotifications(listener.claiming_id, listener.id, listener.refusal)
        if notifications.is_refused or not listener.claiming_id:
            self._watch.refuse(None)
        self._claims.connected(notifications)
        self._claims.watch(self.active_queues)

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._claims.connected(None)
            if listener.fd is not None:
                self.connection.cycle.remove_listener(listener.fd)
            listener.close()

    def on_wake_readable(self) -> bool:
        """Process what the listener received. Return whether the reply to a blocking claim has come as well."""
        if self._listener is None:
            return False
        try:
            changes = self._listener.read_changes()
            self.keeper.keys_changed(changes)
            is_woken = self._claims.keys_changed(changes)
        except self.connection_errors:
            self._stop_listening()  # the next claim makes another
            is_woken = True
        if is_woken:
            self._end_blocking()
        self._wake_others()
        # Redis tells of a new job in a list just before it hands the job to the BLMOVE that waits there.
        is_awaited = not is_woken and self._claims.state is State.BLOCKING
        return is_awaited and _is_readable(self.client.connection)

    def _wake_others(self) -> None:
        """Wake workers that sleep, unless this one claims the jobs that wait in a moment."""
        if self._wakes_others or not self._watch.must_hand_on or not self._claims.mark_unclaimed():
            return
        if self.connection.in_event_loop:
            self._wakes_others = True
            self.connection.call_later(_WAKE_OTHERS_SECONDS, self._pass_tokens)
        else:
            self._pass_tokens()

    def _pass_tokens(self) -> None:
        """Wake a worker that sleeps, for each queue in which jobs may wait and that was not claimed from."""
        self._wakes_others = False
        if queues := self._claims.take_marked(can_claim=self.qos.can_consume()):
            try:
                self.keeper.commands.pass_tokens(sorted(queues))
            except redis.RedisError as error:
                log.debug("could not wake another worker, it looks by itself: %s", error)
        if self.connection.in_event_loop:
            self._wake_others()  # for jobs that came meanwhile

    def wake(self) -> None:
        """Claim on the next turn of the event loop."""
        self._claims.wake()
        self._end_blocking()

    def drop_silent_connection(self) -> None:
        """Disconnect if the connection has left a claim without an answer for too long."""
        connection = self._in_poll
        timeout = silence_timeout(self.lease_seconds) + self._claims.wait_seconds
        if not connection or time.monotonic() - self._brpop_sent_at <= timeout:
            return
        if connection.is_connected and not _is_readable(connection):
            log.warning("Redis has not answered a claim for %.0f s; reconnecting", timeout)
            connection.disconnect()

    def poll(self) -> None:
        """Look on the next turn of the event loop, as the timer of the poll."""
        self._watch.turned_at = time.monotonic()
        self._claims.poll()

    def _end_blocking(self) -> None:
        """Have Redis answer a pending BLMOVE or BLPOP now."""
        if self._claims.state not in {State.BLOCKING, State.WAITING}:
            return
        try:
            if not self.keeper.commands.unblock(self._claims.sent_client_id):
                self._claims.blocking.pause()
                self._watch.refuse(None)
        except redis.RedisError as error:
            log.debug("could not end a wait at Redis, it ends by itself: %s", error)

    def on_claim_finished(self) -> None:
        """Claim after a claim ended: a process is free, and jobs that were skipped may have their turn."""
        self._is_delivering = False
        if self._claims.has_skipped_jobs:
            self.wake()

    # --- lost connections -------------------------------------------------------------------------------

    def _on_connection_disconnect(self, connection: Any) -> None:
        """Adopt the claims whose reply may be lost with the connection, to requeue their jobs."""
        if self._in_poll and connection is self._in_poll:
            for name, blocked_client in self._claims.connection_lost().items():
                self.keeper.adopt_orphan(name, blocked_client)
        super()._on_connection_disconnect(connection)

    def _withdraw(self) -> None:
        """Requeue what a pending claim takes, and what may arrive under a parked lease: nobody consumes it."""
        if self._in_poll:
            self._end_blocking()
            with contextlib.suppress(*self.connection_errors):
                if (claim := self._read_claim()) is not None:
                    self.keeper.adopt_orphan(claim.lease.name)
        if (lease := self._claims.blocking.drop()) is not None:
            self.keeper.adopt_orphan(lease.name)

    # --- kombu's channel, where it would pop, record or restore in its own way --------------------------

    def basic_consume(self, queue: str, no_ack: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue. Without acknowledgements, its messages are claimed without a lease."""
        (self._without_ack.add if no_ack else self._without_ack.discard)(queue)
        consumer = super().basic_consume(queue, no_ack, *args, **kwargs)
        self._watch_queues()
        return consumer

    def _basic_cancel(self, consumer_tag: str) -> Any:
        cancelled = super()._basic_cancel(consumer_tag)
        self._watch_queues()
        blocking_queue = self._claims.blocking_queue
        if not self.active_queues or (blocking_queue is not None and blocking_queue not in self.active_queues):
            self._withdraw()
        return cancelled

    def _watch_queues(self) -> None:
        queues = self.active_queues
        if not self._without_ack.issuperset(queues):  # a consumer of replies has no lease to renew
            self.keeper.watch(queue for queue in queues if model_name(queue))
        self._claims.watch(queues)
        if self._claims.state is State.WAITING:
            self._end_blocking()  # at the tokens of the former queues

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Any:
        """Return one message of an ordinary queue; None if none waits."""
        limits = [ClaimLimits(queue=queue, leased=not no_ack)]
        claim = self.keeper.commands.claim(self.keeper.next_name(), limits, lease_ms=self.keeper.lease_ms)
        payload = None if isinstance(claim, NothingClaimed) else self._ordinary_message(claim, leased=not no_ack)
        if payload is None:
            return None
        message = self.Message(payload, channel=self)
        if not no_ack:
            self.qos.append(message, message.delivery_tag)
        return message

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: ARG002  # kombu's signature
        self.keeper.requeue(message.delivery_tag)

    def _size(self, queue: str) -> int:
        """Return the number of messages that wait in a queue. Celery asks when it declares the queue.

        A key of another type holds none: it must not keep the worker from the other lists and queues.
        """
        size = 0
        with self.conn_or_acquire() as client:
            for step in self.priority_steps:
                try:
                    size += client.llen(self._q_for_pri(queue, step))
                except redis.ResponseError as error:
                    if not is_wrong_type(error):
                        raise
        return size

    def _purge(self, queue: str) -> int:
        """Empty a queue (`celery purge`) and return the number of messages. Jobs of a model end as cancelled."""
        if model_name(queue) is None:
            return int(super()._purge(queue))
        purge = QueuePurge(self.keys, queue, ttl=self.result_ttl)
        with redis.Redis(connection_pool=self.pool) as client:
            while not purge.finished:
                run(partial(execute, client), purge.step(utc_now()))
        return purge.result.cancelled + purge.result.removed

    def close(self) -> None:
        """Close the channel, and requeue unfinished messages, unless the owner of the transport does so."""
        if not self.requeue_on_close and self._qos is not None:
            self._qos.restore_at_shutdown = False
        self._withdraw()
        self._stop_listening()
        self.keeper.close_watch(self._watch)
        super().close()


def _is_readable(connection: Any) -> bool:
    """Return whether a reply, or the end of the connection, can be read now."""
    sock = connection._sock  # noqa: SLF001  # as kombu does
    return sock is not None and bool(kombu_redis._socket_readable(sock))  # noqa: SLF001  # kombu's own check


def _read_reply(connection: Any) -> Any:
    """Read one reply; an error reply is returned."""
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


class Channel(ClaimingChannel, kombu_redis.Channel):  # type: ignore[misc]  # kombu has no types
    """The channel to one Redis."""

    from_transport_options = kombu_redis.Channel.from_transport_options + OPTIONS


class SentinelChannel(ClaimingChannel, kombu_redis.SentinelChannel):  # type: ignore[misc]  # kombu has no types
    """The channel to the primary that Sentinel names."""

    from_transport_options = kombu_redis.SentinelChannel.from_transport_options + OPTIONS


class ClusterChannel(ClaimingChannel, ClusterPools, kombu_redis.Channel):  # type: ignore[misc]  # kombu has no types
    """The channel to the node of a Redis Cluster that serves the key prefix."""

    from_transport_options = ClusterPools.from_transport_options + OPTIONS
