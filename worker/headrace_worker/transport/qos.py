"""Messages that Celery has and has not acknowledged. Their record in Redis is the lease."""

from __future__ import annotations

from kombu.transport import virtual


class QoS(virtual.QoS):  # type: ignore[misc]  # kombu has no types
    """The prefetch limit of a channel, and the end of each message: acknowledged, rejected or requeued."""

    def can_consume(self) -> bool:
        """Return whether another message may be claimed.

        A claim that came over a lost connection still runs in the pool, and counts.
        """
        prefetch = self.prefetch_count or float("inf")
        has_room = self.channel.requeue_on_close or len(self.channel.keeper) < prefetch
        return bool(has_room and super().can_consume())

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message: the lease of its claim ends."""
        self.channel.keeper.acknowledge(delivery_tag)
        super().ack(delivery_tag)
        self.channel.on_claim_finished()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """End a message that was not processed.

        A message with a `cause` ran, and its process was lost. Without one, nothing ran.
        """
        keeper, message = self.channel.keeper, self._delivered.get(delivery_tag)
        if cause := getattr(message, "cause", None):
            keeper.requeue_isolated(delivery_tag, cause)
        elif requeue:
            keeper.requeue(delivery_tag, behind=True)
        else:
            keeper.discard(delivery_tag)
        super().ack(delivery_tag)
        self.channel.on_claim_finished()
