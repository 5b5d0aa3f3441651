"""Sleep while nothing waits, and wake when a list of our queues changes, without popping anything.

Redis tells of changed keys: `CLIENT TRACKING ON BCAST PREFIX ... REDIRECT <listener>` on the connection that
claims, and a listener subscribed to `__redis__:invalidate`. It covers every priority of every queue with one
connection, and costs nothing while there is work: tracking is switched on when a claim comes back empty,
together with a second claim (what was pushed between the two is found by it), and off again when claims keep
finding jobs. Source: Redis documentation, "Client-side caching", broadcasting and redirect modes.

Works with RESP2, Redis 6 and later, and Valkey. Where the server or its ACL refuses, the poll remains.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from headrace.wire.keys import Keys
    from headrace_worker.transport.channel import ClaimingChannel

log = logging.getLogger("headrace.claims")

#: Nothing may wait longer than this many seconds for a claim, even if every wake-up were lost.
POLL_EVERY = 0.25
_CHANNEL = "__redis__:invalidate"
#: A string in what it tells, in RESP2, and those that are in every message: all others are keys.
_BULK = re.compile(rb"\$\d+\r\n([^\r\n]*)\r\n")
_FRAME = {b"message", _CHANNEL.encode()}
#: Bytes of what it tells that are read at once.
_READ = 65_536
#: Claims in a row that must find jobs before tracking is switched off.
_BUSY_AFTER = 8


class QueueNotifications:
    """Whether a channel's claims sleep, and what wakes them. Lives as long as one socket to Redis."""

    def __init__(self, channel: ClaimingChannel, connection: Any) -> None:
        #: Nothing waits, and we shall hear when that changes.
        self.asleep = False
        self._channel = channel
        self._sock = connection._sock  # noqa: SLF001  # the identity of the connection, as kombu uses it
        self._prefixes: tuple[str, ...] = ()
        self._tracking = self._wanted = self._refused = False
        #: Something changed since the last claim was sent: its reply may be older than that.
        self._woken = False
        self._busy = 0
        self._unread = 0
        # RESP2, where invalidations come as messages of a channel, to another connection than the one that asked.
        # redis-py ties its maintenance notices to RESP3, and their options must go with it.
        options = {k: v for k, v in channel.pool.connection_kwargs.items() if not k.startswith("maint_")}
        self._listener = channel.pool.connection_class(**{**options, "protocol": 2})
        self._listener_id = self._fd = 0
        #: The id of the connection that claims, by which Redis ends a wait of it; 0 where it does not say.
        self.client_id = 0
        try:
            connection.send_command("CLIENT", "ID")
            self.client_id = int(connection.read_response())
            self._listener.connect()
            self._listener.send_command("CLIENT", "ID")
            self._listener_id = int(self._listener.read_response())
            self._listener.send_command("SUBSCRIBE", _CHANNEL)
            self._listener.read_response()
        except redis.ResponseError as error:
            self._listener.disconnect()
            self._refuse(error)
            return
        self._told = self._listener._sock  # noqa: SLF001  # as kombu does
        self._told.settimeout(0)
        self._fd = self._told.fileno()
        channel.connection.cycle.add_listener(self._fd, self._told, channel)

    def _refuse(self, error: redis.ResponseError) -> None:
        if not self._refused:
            log.warning(
                "Redis does not tell of new jobs (%s); workers look every %.2f s instead. Permit this user "
                "CLIENT TRACKING, CLIENT ID and the channel %s", error, POLL_EVERY, _CHANNEL,
            )  # fmt: skip
        self._tracking, self._refused = False, True

    @property
    def may_sleep(self) -> bool:
        """Whether a claim that finds nothing now may be the last for a while, and Redis can end a wait of ours."""
        return bool(self.client_id) and (self._tracking or self._wanted or self._refused)

    def belongs_to(self, connection: Any) -> bool:
        """Whether this was made for the socket a connection has now."""
        return self._sock is not None and connection._sock is self._sock  # noqa: SLF001

    def watch(self, keys: Keys, queues: Iterable[str]) -> None:
        """Set the queues whose lists wake us."""
        prefixes = covering([key for queue in queues for key in (keys.prefix + queue, keys.isolated(queue))])
        if prefixes != self._prefixes:
            self._prefixes = prefixes
            self._tracking = self._wanted = self.asleep = False

    def commands(self) -> list[Sequence[Any]]:
        """What to send before the next claim: to begin or to end tracking, or nothing."""
        commands: list[Sequence[Any]] = []
        if self._wanted and not self._tracking and not self._refused:
            # OFF first: prefixes cannot be changed while tracking is on.
            prefixes = [word for prefix in self._prefixes for word in ("PREFIX", prefix)]
            commands = [
                ("CLIENT", "TRACKING", "OFF"),
                ("CLIENT", "TRACKING", "ON", "REDIRECT", self._listener_id, "BCAST", *prefixes, "NOLOOP"),
            ]
            self._tracking = True
        elif self._tracking and self._busy >= _BUSY_AFTER:
            commands = [("CLIENT", "TRACKING", "OFF")]
            self._tracking = False
        self._unread = len(commands)
        self._woken = False
        return commands

    def read_replies(self, connection: Any) -> None:
        """Read the replies to `commands`, which come before the claim's."""
        while self._unread:
            self._unread -= 1
            try:
                connection.read_response()
            except redis.ResponseError as error:
                self._refuse(error)

    def record_claim(self, jobs: bool) -> None:
        """Tell what the last claim found. After an empty one under tracking, sleep."""
        if jobs:
            self._busy += 1
            self._wanted = False
            return
        self._busy = 0
        self._wanted = True
        self.asleep = (self._tracking or self._refused) and not self._woken

    def pause(self) -> None:
        """Redis would not claim: leave it alone until the next poll."""
        self.asleep = True

    def wake(self) -> None:
        """Claim on the next turn of the loop."""
        self.asleep = False
        self._woken = True

    def on_readable(self, waits_at: str | None = None) -> bool:
        """A key changed: wake, unless it is the list at which we wait. Says whether it woke us.

        Raises OSError when the listener is cut off.
        """
        woken, expected = False, {waits_at.encode()} if waits_at else None
        try:
            while got := self._told.recv(_READ):
                # What is cut off in the middle wakes us once for nothing.
                woken = woken or {*_BULK.findall(got)} - _FRAME != expected
                if len(got) < _READ:
                    break
            else:
                raise ConnectionResetError("Redis has closed the connection that tells of new jobs")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        if woken:
            self.wake()
        return woken

    def close(self) -> None:
        """Give the listener's connection back."""
        if self._fd:
            self._channel.connection.cycle.remove_listener(self._fd)
        self._listener.disconnect()


def covering(prefixes: Iterable[str]) -> tuple[str, ...]:
    """The fewest of the prefixes that cover all: Redis takes none that overlap."""
    chosen: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not (chosen and prefix.startswith(chosen[-1])):
            chosen.append(prefix)
    return tuple(chosen)
