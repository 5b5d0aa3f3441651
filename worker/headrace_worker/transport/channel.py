"""kombu's Redis channel with the consuming side replaced: claims under a lease instead of a blocking pop.

    poll tick ─> claim sent ─> reply read ─> one message to Celery ─> ack
                     ^              │
                     └── woken <────┘ nothing waits: sleep until a key of our queues changes

The event loop never waits for Redis: a claim is sent on one turn of the loop and read on another, as kombu
does with its BRPOP, whose hooks (`_brpop_start`, `_brpop_read`) these are. A claim is only sent while
`qos.can_consume()`, so with a prefetch of one for each pool process nothing is claimed that no process is
free to run. Publishing, control and events stay kombu's.
"""

from __future__ import annotations

import hashlib
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
from kombu.utils.json import loads

from headrace.queues import Keys, model_of
from headrace_worker.transport import scripts
from headrace_worker.transport.message import CONTENT_TYPE, claim_message
from headrace_worker.transport.scripts import Ask, Claim, Held, LeaseKeys
from headrace_worker.transport.wakeup import Wakeup

log = logging.getLogger("headrace.claims")

#: One claim in this many takes the lowest priority first: file batches are never starved.
_LOWEST_EVERY = 10
#: Nothing may wait longer than this many seconds for a claim, even if every wake-up were lost.
POLL_EVERY = 0.25
#: What kombu sets on a channel from the transport options, besides its own.
OPTIONS = ("lease_seconds", "ask_of", "release_on_close", "poll_every")


def one_by_one(queue: str) -> Ask:
    """What a claim takes of a queue when nothing else is said."""
    return Ask(queue=queue)


class QoS(virtual.QoS):  # type: ignore[misc]  # kombu has no types
    """What Celery has taken and not yet acknowledged. The record that survives us is the lease."""

    def ack(self, delivery_tag: str) -> None:
        """Done with: an ordinary message ends its lease here, a claim's has ended when it was published."""
        message = self._delivered.get(delivery_tag)
        if message is not None and message.content_type == CONTENT_TYPE:
            self.channel.keeper.forget(delivery_tag)
        else:
            self.channel.keeper.finish(delivery_tag)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give up: a claim goes back to run again; an ordinary message goes back if asked, else it is gone."""
        message = self._delivered.get(delivery_tag)
        if message is not None and message.content_type == CONTENT_TYPE:
            self.channel.keeper.lapse(delivery_tag, getattr(message, "cause", "crash"))
        elif requeue:
            self.channel.keeper.release(delivery_tag)
        else:
            self.channel.keeper.finish(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)


class Claiming(virtual.Channel):  # type: ignore[misc]  # kombu has no types
    """What our channels have in common; mixed into kombu's channel and its Sentinel one."""

    QoS = QoS
    #: Transport options: seconds a lease lasts; what to ask of a queue; whether closing the channel puts
    #: unfinished claims back (the worker says no: its pool goes on, and it releases when it ends).
    lease_seconds: float = 10.0
    ask_of: Callable[[str], Ask] = staticmethod(one_by_one)
    release_on_close: bool = True
    poll_every: float = POLL_EVERY

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._wakeup: Wakeup | None = None
        self._use_eval = False
        self._sent: tuple[str, list[Ask]] | None = None
        self._claims = itertools.count(1)
        self._without_ack: set[str] = set()
        #: When (monotonic) a queue that is left to fill up has waited long enough.
        self._filling: dict[str, float] = {}
        super().__init__(*args, **kwargs)
        self.names = LeaseKeys(Keys(self.global_keyprefix))
        self.keeper = self.connection.keeper_for(self)

    # --- the claim, sent and read ------------------------------------------------------------------

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002  # kombu's signature
        """Send a claim, unless the last one found nothing and nothing has changed since."""
        connection = self.client.connection
        wakeup = self._wakeup_for(connection)
        if wakeup.asleep:
            return
        asks = self._asks(time.monotonic())
        if not asks:
            return
        name = self.keeper.next_name()
        keys, values = scripts.claim_call(
            self.names,
            name,
            asks,
            lasts_ms=0 if asks[0].queue in self._without_ack else self.keeper.lasts_ms,
            lowest_first=next(self._claims) % _LOWEST_EVERY == 0,
        )
        call = ["EVAL", scripts.CLAIM] if self._use_eval else ["EVALSHA", _CLAIM_SHA]
        commands = [*wakeup.commands(), [*call, len(keys), *keys, *values]]
        self._sent = name, asks
        self._in_poll = connection
        self._brpop_sent_at = time.monotonic()
        connection.send_packed_command(connection.pack_commands(commands))

    def _wakeup_for(self, connection: Any) -> Wakeup:
        if self._wakeup is None or not self._wakeup.belongs_to(connection):
            self._drop_wakeup()
            self._wakeup = Wakeup(self, connection)
            self._wakeup.watch(self.names, self.active_queues)
        return self._wakeup

    def _asks(self, now: float) -> list[Ask]:
        """What to ask for now, in the fair order of the queues.

        Queues consumed without acknowledgement are asked apart: their messages are under no lease.
        """
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return []
        unleased = queues[0] in self._without_ack
        asks = [self.ask_of(queue) for queue in queues if (queue in self._without_ack) == unleased]
        return [
            ask
            if not ask.wait
            else msgspec.structs.replace(ask, full_only=now < self._filling.get(ask.queue, _LATER))
            for ask in asks
        ]

    def _brpop_read(self, **_: Any) -> bool:
        """Read the reply to a claim, and hand what was claimed to Celery as one message."""
        connection = self.client.connection
        wakeup, sent = self._wakeup, self._sent
        try:
            if wakeup is None or sent is None:
                raise Empty
            try:
                wakeup.read_replies(connection)
                reply = connection.read_response()
            except self.connection_errors:
                connection.disconnect()
                raise
            except redis.exceptions.NoScriptError:
                self._use_eval = True  # send the text this once: Redis keeps it
                raise Empty from None
        finally:
            self._in_poll = None
            self._sent = None
            self._flush_brpop_reauth()
        self._use_eval = False
        got = scripts.claimed(reply, *sent)
        wakeup.found(isinstance(got, Claim))
        if isinstance(got, Held):
            self._let_fill(got.queues, {ask.queue: ask for ask in sent[1]})
            raise Empty
        self._filling.pop(got.lease.queue, None)
        self._queue_cycle.rotate(got.lease.queue)
        if model_of(got.lease.queue):
            self._hand_over(got)
        else:
            self._hand_over_ordinary(got)
        return True

    def _let_fill(self, queues: Sequence[str], asks: dict[str, Ask]) -> None:
        now = time.monotonic()
        for queue in queues:
            if queue not in self._filling:
                self._filling[queue] = now + asks[queue].wait
                self.connection.call_later(asks[queue].wait, self.wake)

    def _hand_over(self, claim: Claim) -> None:
        self.keeper.hold(claim)
        self.connection._deliver(claim_message(claim), claim.lease.queue)  # noqa: SLF001  # as kombu does

    def _hand_over_ordinary(self, claim: Claim) -> None:
        """An ordinary task's message is handed over as it is, but for its delivery tag."""
        lease, frame = claim.lease, claim.frames[0]
        leased = lease.queue not in self._without_ack
        try:
            message = loads(frame.decode())
            message["properties"]["delivery_tag"] = lease.name
        except (ValueError, KeyError, TypeError):
            log.error(  # noqa: TRY400  # a traceback would quote the message
                "a message of %s is no Celery message; kept in %s", lease.queue, self.names.malformed
            )
            self.keeper.commands.set_aside(lease if leased else None, frame)
            return
        if leased:
            self.keeper.hold(claim)
        self.connection._deliver(message, lease.queue)  # noqa: SLF001  # as kombu does

    # --- sleep and wake ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Claim on the next turn of the loop."""
        if self._wakeup:
            self._wakeup.wake()

    def on_wake_readable(self) -> None:
        """The listener has something to say."""
        if self._wakeup is None:
            return
        try:
            self._wakeup.on_readable()
        except self.connection_errors:
            self._drop_wakeup()  # the next claim makes another

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
        return cancelled

    def _watch_queues(self) -> None:
        queues = self.active_queues
        if queues:
            self.keeper.watch(queue for queue in queues if model_of(queue))
        if self._wakeup:
            self._wakeup.watch(self.names, queues)

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Any:
        """One message of an ordinary queue, or None."""
        lasts = 0 if no_ack else self.keeper.lasts_ms
        got = self.keeper.commands.claim(self.keeper.next_name(), [one_by_one(queue)], lasts_ms=lasts)
        if isinstance(got, Held):
            return None
        payload = loads(got.frames[0].decode())
        payload["properties"]["delivery_tag"] = got.lease.name
        message = self.Message(payload, channel=self)
        if not no_ack:
            self.keeper.hold(got)
            self.qos.append(message, message.delivery_tag)
        return message

    def _restore(self, message: Any, leftmost: bool = False) -> None:  # noqa: ARG002  # kombu's signature
        self.keeper.release(message.delivery_tag)

    def close(self) -> None:
        """Close the channel; unfinished messages go back unless the owner of the transport sees to them."""
        if not self.release_on_close and self._qos is not None:
            self._qos.restore_at_shutdown = False
        self._drop_wakeup()
        super().close()


#: No moment comes after this.
_LATER = float("inf")
_CLAIM_SHA = hashlib.sha1(scripts.CLAIM.encode(), usedforsecurity=False).hexdigest()  # Redis's name for it


class Channel(Claiming, kombu_redis.Channel):  # type: ignore[misc]  # kombu has no types
    """A channel to one Redis."""

    from_transport_options = kombu_redis.Channel.from_transport_options + OPTIONS


class SentinelChannel(Claiming, kombu_redis.SentinelChannel):  # type: ignore[misc]  # kombu has no types
    """A channel to the primary that Sentinel names."""

    from_transport_options = kombu_redis.SentinelChannel.from_transport_options + OPTIONS
