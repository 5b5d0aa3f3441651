"""kombu's poller of connections, with one kind of connection more: the listeners of notifications."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis

from headrace_worker.transport.channel import ClaimingChannel
from headrace_worker.transport.notifications import POLL_SECONDS

#: The kind of a listener, beside kombu's `BRPOP` and `LISTEN`.
_WAKE = "WAKE"


class Poller(kombu_redis.MultiChannelPoller):  # type: ignore[misc]  # kombu has no types
    """The poller of one transport."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: dict[int, Any] = {}
        #: The time of the next poll, by the monotonic clock; used without an event loop.
        self._poll_at = 0.0
        #: Takes a file descriptor out of the event loop; None without a loop.
        self.remove_from_loop: Callable[[int], None] | None = None
        #: Returns whether the event loop reads a file descriptor already.
        self.is_read: Callable[[int], bool] = lambda _fd: False

    @property
    def fds(self) -> dict[int, Any]:
        """The file descriptors that the event loop is yet to read: kombu adds all of these on every turn."""
        return {fd: channel for fd, channel in super().fds.items() if not self.is_read(fd)}

    def add_listener(self, fd: int, sock: Any, channel: ClaimingChannel) -> None:
        """Tell a channel when its listener's socket is readable."""
        self._listeners[fd] = sock
        self._fd_to_chan[fd] = (channel, _WAKE)
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
        """Read a file descriptor. A listener is read whether or not there is room for a message now."""
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if kind == _WAKE:
            if channel.on_wake_readable() and channel.qos.can_consume():
                return channel.handlers["BRPOP"]()  # a job: the next turn of the event loop takes a while to come
            if channel.active_queues and channel.qos.can_consume():
                self._register_BRPOP(channel)  # claim now: the next turn of the event loop takes a while to come
            raise Empty  # nothing was delivered
        return super().on_readable(fileno)

    def handle_event(self, fileno: int, event: int) -> Any:
        """Handle an event. A listener is read after an error too: it then reads the end of its connection."""
        if fileno in self._listeners:
            return self.on_readable(fileno)
        return super().handle_event(fileno, event)

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Wait for one event without an event loop, and poll the queues in between."""
        now = time.monotonic()
        if now >= self._poll_at:
            self._poll_at = now + POLL_SECONDS
            self.poll_all()
        seconds = self._poll_at - now
        return super().get(callback, seconds if timeout is None else min(timeout, seconds))

    def poll_within(self, seconds: float) -> None:
        """Poll the queues after these seconds at the latest."""
        self._poll_at = min(self._poll_at, time.monotonic() + seconds)

    def poll_all(self) -> None:
        """Let every channel claim, also without a notification."""
        for channel in list(self._channels):
            channel.drop_silent_connection()
            channel.poll()

    def maybe_restore_messages(self) -> None:
        """Do nothing: the lease keeper brings back what expired."""

    def on_poll_init(self, poller: Any) -> None:
        """Begin to poll. There is nothing to restore."""
        self.poller = poller
