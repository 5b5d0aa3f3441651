"""Headrace's kombu transport: Redis lists as kombu lays them out, consumed by claims under a lease.

    channel    when to claim, and how a claim becomes one message to Celery
    scripts    what a claim does in Redis: six Lua scripts, each a typed function
    standing   the lease an idle worker leaves with Redis, for a job to come under
    wakeup     how an idle worker hears of a job without popping it
    keeper     renewing leases, and bringing back what others lost
    message    the claim as Celery sees it

Chosen by the settings `configuration` gives for a broker's URL.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty
from typing import Any

import kombu.transport
import redis
from kombu.transport import redis as kombu_redis
from kombu.transport.redis import MultiChannelPoller

from headrace_worker.transport.channel import Channel, ClaimingChannel, SentinelChannel
from headrace_worker.transport.lease_keeper import LeaseKeeper, silence_timeout
from headrace_worker.transport.notifications import POLL_EVERY
from headrace_worker.transport.publish_script import DeadLetterLimits

__all__ = [
    "ALIAS",
    "Channel",
    "ClaimingChannel",
    "LeaseKeeper",
    "SentinelChannel",
    "SentinelTransport",
    "Transport",
    "broker_settings",
    "make_keeper",
    "silence_timeout",
]


#: The name of the transport to kombu and Celery, and where Sentinel says which Redis it is.
ALIAS = "headrace"
_SENTINEL_ALIAS = f"{ALIAS}-sentinel"


class Poller(MultiChannelPoller):  # type: ignore[misc]  # kombu has no types
    """kombu's poller, with one kind of connection more: the listeners that wake a channel."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: dict[int, Any] = {}
        #: When (monotonic) to look at the queues next, where there is no loop to call us.
        self._look_at = 0.0
        #: Takes a file descriptor out of the event loop; None while there is no loop.
        self.remove_from_loop: Callable[[int], None] | None = None
        #: Whether the event loop reads a file descriptor for us already.
        self.is_read: Callable[[int], bool] = lambda _fd: False

    @property
    def fds(self) -> dict[int, Any]:
        """What the event loop is still to read: kombu adds all of these on every turn of it."""
        return {fd: channel for fd, channel in super().fds.items() if not self.is_read(fd)}

    def add_listener(self, fd: int, sock: Any, channel: ClaimingChannel) -> None:
        """Wake the channel when the socket is readable."""
        self._listeners[fd] = sock
        self._fd_to_chan[fd] = (channel, "WAKE")
        self.poller.register(sock, self.eventflags)

    def remove_listener(self, fd: int) -> None:
        """Forget a listener."""
        sock = self._listeners.pop(fd, None)
        if sock is None:
            return
        self._fd_to_chan.pop(fd, None)
        if self.remove_from_loop is not None:
            self.remove_from_loop(fd)
        else:
            self._unregister_from_poll(sock)

    def on_readable(self, fileno: int) -> Any:
        """A listener wakes its channel whether or not there is room for a message now."""
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if kind == "WAKE":
            channel.on_wake_readable()
            if channel.active_queues and channel.qos.can_consume():
                self._register_BRPOP(channel)  # claim now: the loop's next turn takes a while to come
            raise Empty  # nothing was delivered
        return super().on_readable(fileno)

    def handle_event(self, fileno: int, event: int) -> Any:
        """A listener that is cut off has nothing to be read but its end."""
        if fileno in self._listeners:
            return self.on_readable(fileno)
        return super().handle_event(fileno, event)

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Without an event loop: wait for one event, looking at the queues every so often all the same."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + POLL_EVERY
            self.poll_all()
        within = self._look_at - now
        return super().get(callback, within if timeout is None else min(timeout, within))

    def look_within(self, seconds: float) -> None:
        """Look at the queues in that time at the latest."""
        self._look_at = min(self._look_at, time.monotonic() + seconds)

    def poll_all(self) -> None:
        """Let every channel claim: the slow poll beside the wake-up."""
        for channel in list(self._channels):
            channel.drop_if_silent()
            channel.look()

    def maybe_restore_messages(self) -> None:
        """Nothing: lapsed leases are swept by the keeper."""

    def on_poll_init(self, poller: Any) -> None:
        """Begin to poll; there is nothing of kombu's own to restore."""
        self.poller = poller


class Transport(kombu_redis.Transport):  # type: ignore[misc]  # kombu has no types
    """The transport of a worker."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()
        self._keeper: LeaseKeeper | None = None
        self._loop: Any = None
        #: The loop's timer of the slow poll.
        self._looking: Any = None

    def keeper_for(self, channel: ClaimingChannel) -> LeaseKeeper:
        """The keeper of this transport's leases, or the one the process has already (`keeper` option)."""
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
        self._stop_looking()
        self._looking = loop.call_repeatedly(POLL_EVERY, self.cycle.poll_all)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    @property
    def in_event_loop(self) -> bool:
        """Whether Celery's event loop drives this transport, as it does with the prefork pool."""
        return self._loop is not None

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call back from the event loop; without one, look at the queues then."""
        if self._loop is not None:
            self._loop.call_later(seconds, call)
        else:
            self.cycle.look_within(seconds)

    def close_connection(self, connection: Any) -> None:
        """Close all channels, and the keeper unless the process goes on using it."""
        super().close_connection(connection)
        self._stop_looking()
        if self._keeper is not None and "share_keeper" not in self.client.transport_options:
            self._keeper.close()
            self._keeper = None


class SentinelTransport(Transport, kombu_redis.SentinelTransport):  # type: ignore[misc]  # kombu has no types
    """The transport of a worker whose Redis is found by Sentinel."""

    Channel = SentinelChannel


class Hook:
    """A callable among the options of the transport, which `celery inspect stats` and Flower ask for as JSON."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        """What it stands for."""
        return self._call(*args)

    def __json__(self) -> str:
        """Its name; kombu's encoder asks for this."""
        return self._call.__qualname__


def broker_settings(broker_url: str) -> dict[str, Any]:
    """Celery's settings that choose this transport for a broker's URL, in kombu's words."""
    if broker_url.startswith("redis+socket:"):
        # With such a URL kombu goes by its scheme, whatever transport was chosen.
        return {"broker_url": broker_url.replace("redis+", f"{ALIAS}+", 1)}
    if broker_url.startswith("sentinel:"):
        return {"broker_transport": _SENTINEL_ALIAS, "broker_failover_strategy": Hook(_around)}
    return {"broker_transport": ALIAS}


def _around(urls: Iterable[str]) -> Iterator[str]:
    """Which Sentinel kombu turns to, again and again: it then goes by the scheme, which is to be ours."""
    return itertools.cycle(url.replace("sentinel:", f"{_SENTINEL_ALIAS}:", 1) for url in urls)


def make_keeper(channel: ClaimingChannel, bounds: DeadLetterLimits | None = None) -> LeaseKeeper:
    """A keeper on connections of its own, to the Redis of a channel; `bounds` are those of dead letters."""
    pool = channel._get_pool()  # noqa: SLF001  # kombu's way to a pool with the channel's parameters
    # A renewal that waits for ever on a silent connection is no renewal.
    pool.connection_kwargs["socket_timeout"] = silence_timeout(channel.lease_seconds)
    return LeaseKeeper(
        lambda: redis.Redis(connection_pool=pool),
        channel.keys,
        lease_seconds=channel.lease_seconds,
        bounds=bounds or DeadLetterLimits(),
    )


kombu.transport.TRANSPORT_ALIASES.update(
    {
        ALIAS: f"{__name__}:Transport",
        _SENTINEL_ALIAS: f"{__name__}:SentinelTransport",
    }
)
