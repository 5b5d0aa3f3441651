"""kombu's Redis transport with the channels, the poller and the lease keeper of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from kombu.transport import redis as kombu_redis

from headrace.results.letter_scripts import DeadLetterLimits
from headrace_worker.transport.channel import Channel, ClaimingChannel, ClusterChannel, SentinelChannel
from headrace_worker.transport.lease_keeper import LeaseKeeper, silence_timeout
from headrace_worker.transport.notifications import POLL_SECONDS
from headrace_worker.transport.poller import Poller


class Transport(kombu_redis.Transport):  # type: ignore[misc]  # kombu has no types
    """The transport of a worker."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()
        self._keeper: LeaseKeeper | None = None
        self._loop: Any = None
        #: The event loop's timer of the poll.
        self._poll_timer: Any = None

    def keeper_for(self, channel: ClaimingChannel) -> LeaseKeeper:
        """Return the keeper of this transport's leases; with the option `share_keeper`, that of the process."""
        if self._keeper is None:
            share = self.client.transport_options.get("share_keeper")
            self._keeper = share(channel) if share else make_keeper(channel)
        return self._keeper

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Join Celery's event loop."""
        super().register_with_event_loop(connection, loop)
        self._loop = loop
        self.cycle.remove_from_loop = loop.remove
        self.cycle.is_read = lambda fd: loop.readers.get(fd) == (self.on_readable, (fd,))
        self._stop_polling()
        self._poll_timer = loop.call_repeatedly(POLL_SECONDS, self.cycle.poll_all)

    def _stop_polling(self) -> None:
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None

    @property
    def in_event_loop(self) -> bool:
        """True if Celery's event loop drives this transport, as with the prefork pool."""
        return self._loop is not None

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call back from the event loop after these seconds; without a loop, poll the queues then."""
        if self._loop is not None:
            self._loop.call_later(seconds, call)
        else:
            self.cycle.poll_within(seconds)

    def close_connection(self, connection: Any) -> None:
        """Close all channels, and the keeper unless it belongs to the process."""
        super().close_connection(connection)
        self._stop_polling()
        if self._keeper is not None and "share_keeper" not in self.client.transport_options:
            self._keeper.close()
            self._keeper = None


class SentinelTransport(Transport, kombu_redis.SentinelTransport):  # type: ignore[misc]  # kombu has no types
    """The transport of a worker whose Redis is found through Sentinel."""

    Channel = SentinelChannel


class ClusterTransport(Transport):
    """The transport of a worker whose Redis is a node of a cluster."""

    Channel = ClusterChannel


def make_keeper(channel: ClaimingChannel, limits: DeadLetterLimits | None = None) -> LeaseKeeper:
    """Make a lease keeper with connections of its own to the Redis of a channel."""
    pool = channel._get_pool()  # noqa: SLF001  # kombu's way to a pool with the channel's parameters
    # A renewal must not wait for ever on a silent connection.
    pool.connection_kwargs["socket_timeout"] = silence_timeout(channel.lease_seconds)
    return LeaseKeeper(
        lambda: redis.Redis(connection_pool=pool),
        channel.keys,
        lease_seconds=channel.lease_seconds,
        limits=limits or DeadLetterLimits(),
    )
