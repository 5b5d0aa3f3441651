"""The decisions of an outcome listener, without I/O: commands to send, replies, pings, reconnects and the end.

`OutcomeListener` (a thread) and `AsyncOutcomeListener` (a task) carry these decisions out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any

import msgspec
import redis
from redis.exceptions import RedisError

from headrace.connection.errors import is_permanent, translate_error
from headrace.errors import BrokerUnavailable
from headrace.results.reply_channel import REFETCH_SECONDS
from headrace.results.subscriptions import Subscriptions
from headrace.settings import Settings
from headrace.wire.keys import Keys
from headrace.wire.outcome import Outcome, decode_by_job, decode_lines

#: Seconds a listener stays connected while no caller waits.
LINGER_SECONDS = 10.0
#: Seconds of silence after which the listener sends a PING, to learn whether the connection still works.
PING_SECONDS = 5.0
#: Seconds between attempts to connect, at first and at most.
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.05, 1.0


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """Redis confirmed the subscription to the channel of a job, or to the reply channel, if `job` is None."""

    job: str | None


class Arrived(msgspec.Struct, frozen=True):
    """Outcomes were announced, or fetched."""

    outcomes: Mapping[str, Outcome]


class Step(Enum):
    """The next action of a listener."""

    CONTINUE = auto()
    PING = auto()
    #: No caller has waited for a while: disconnect.
    STOP = auto()


class ListenerState:
    """The subscriptions of one listener, and the state of its connection.

    `read_reply` and `read_stored` change nothing. A threaded listener holds its lock during all other calls.
    """

    def __init__(self, keys: Keys, settings: Settings, reply_channel: str) -> None:
        self.subscriptions = Subscriptions()
        #: The reason why there is no connection at the moment; None if there is one.
        self.error: BrokerUnavailable | None = None
        self._settings = settings
        self._channel_prefix = keys.result("")
        self._reply_channel = keys.reply_channel(reply_channel)
        self._pause = _FIRST_PAUSE_SECONDS
        self._ping_sent = False
        self._received_at = self._waited_at = self._refetched_at = 0.0

    def on_connected(self, now: float) -> None:
        """Start over on a new connection. `now` is a monotonic time in seconds, here and below."""
        self.subscriptions.start_over()
        self.error = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._ping_sent = False
        self._received_at = self._waited_at = self._refetched_at = now

    def on_connection_lost(self, error: Exception) -> float:
        """Note why the connection was lost, and return the seconds to wait before the next attempt to connect.

        If Redis refuses the client, all waits end with the error.
        """
        cause = error if isinstance(error, RedisError) else redis.ConnectionError(str(error))
        self.error = translate_error(cause, self._settings)
        if is_permanent(cause):
            self.subscriptions.fail(self.error)
        pause, self._pause = self._pause, min(self._pause * 2, _MAX_PAUSE_SECONDS)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads reconnects, no secret

    def next_subscribe(self) -> list[str]:
        """Return the next SUBSCRIBE command; empty if there is none to send now."""
        jobs = self.subscriptions.next_subscribe()
        if self.subscriptions.reply_channel.start_subscribing():
            return ["SUBSCRIBE", self._reply_channel, *self._names(jobs)]
        return ["SUBSCRIBE", *self._names(jobs)] if jobs else []

    def next_unsubscribe(self) -> list[str]:
        """Return the next UNSUBSCRIBE command; empty if there is none to send now."""
        jobs = self.subscriptions.next_unsubscribe()
        return ["UNSUBSCRIBE", *self._names(jobs)] if jobs else []

    def next_fetch(self) -> list[str]:
        """Return the result keys for the next MGET; empty if there is none to send now."""
        return self._names(self.subscriptions.next_fetch())

    def _names(self, jobs: list[str]) -> list[str]:
        # The channel of a job bears the name of its result key.
        return [self._channel_prefix + job for job in jobs]

    def read_stored(self, names: Sequence[str], stored: Sequence[object]) -> Arrived:
        """Decode the reply to an MGET of these result keys."""
        jobs = [name.removeprefix(self._channel_prefix) for name in names]
        return Arrived(decode_by_job(dict(zip(jobs, stored, strict=True))))

    def read_reply(self, reply: list[Any]) -> Subscribed | Arrived | None:
        """Decode a reply of the subscribed connection; None if it says nothing of a job."""
        match reply:
            case [b"message", bytes() as channel, bytes() as message]:
                name = channel.decode(errors="replace")
                if name == self._reply_channel:
                    return Arrived({outcome.job: outcome for outcome in decode_lines(message)})
                return Arrived(decode_by_job({name.removeprefix(self._channel_prefix): message}))
            case [b"subscribe", bytes() as channel, *_]:
                name = channel.decode(errors="replace")
                return Subscribed(None if name == self._reply_channel else name.removeprefix(self._channel_prefix))
        return None

    def handle(self, event: Subscribed | Arrived | None) -> None:
        """Update the subscriptions and the waiters."""
        if isinstance(event, Arrived):
            self.subscriptions.on_outcomes(event.outcomes)
        elif isinstance(event, Subscribed):
            if event.job is None:
                self.subscriptions.reply_channel.on_subscribed()
            else:
                self.subscriptions.on_subscribed(event.job)

    def next_step(self, now: float, *, received: bool) -> Step:
        """Decide what to do next. `received` is True if a reply arrived since the last call.

        Raises redis.TimeoutError if a PING was not answered in time.
        """
        if now - self._refetched_at > REFETCH_SECONDS:
            self._refetched_at = now
            self.subscriptions.reply_channel.refetch()
        if received:
            self._received_at, self._ping_sent = now, False
        if self.subscriptions:
            self._waited_at = now
        elif now - self._waited_at > LINGER_SECONDS:
            return Step.STOP
        silence = now - self._received_at
        if self._ping_sent and silence > PING_SECONDS + self._settings.command_timeout:
            raise redis.TimeoutError("no answer to a PING")
        if not self._ping_sent and silence > PING_SECONDS:
            self._ping_sent = True
            return Step.PING
        return Step.CONTINUE
