"""Client tracking on the connection that claims: claims sleep while nothing waits, and wake when a list changes.

Redis names changed keys on another connection (`listener`): `CLIENT TRACKING ON BCAST PREFIX ... REDIRECT`.
One listener covers every list of every queue. Tracking costs nothing while there is work: it is switched on when a
claim comes back empty, together with a second claim, which finds what was pushed in between. It is switched off
when claims keep finding jobs. Source: Redis documentation, "Client-side caching", broadcasting and redirect modes.

It works with RESP2, Redis 6 and later, and Valkey. If the server or its ACL refuses, the poll remains.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import redis

from headrace.wire.keys import Keys

log = logging.getLogger("headrace.claims")

#: Seconds between two polls of an idle worker that cannot be notified.
POLL_SECONDS = 0.25
#: Seconds between two looks of an idle worker that no notification wakes.
LOOK_SECONDS = 1.5
#: The channel on which Redis names changed keys.
INVALIDATION_CHANNEL = "__redis__:invalidate"
#: The number of successive claims with jobs after which tracking is switched off.
_CLAIMS_UNTIL_OFF = 32


class QueueNotifications:
    """The tracking of one connection, and whether its claims sleep. It ends with the connection."""

    def __init__(self, client_id: int, listener_id: int, refusal: redis.ResponseError | None = None) -> None:
        #: The id of the connection that claims, to end its BLMOVE; 0 if Redis does not tell.
        self.client_id = client_id
        #: True while nothing waits and a notification will tell when that changes.
        self.is_asleep = False
        self._listener_id = listener_id
        self._prefixes: tuple[str, ...] = ()
        #: Tracking is on; it is to be switched on; Redis refuses it.
        self._is_on = self._is_due = self.is_refused = False
        #: Something changed since the last claim was sent: its reply may be older than the change.
        self._was_woken = False
        self._claims_with_jobs = 0
        if refusal is not None:
            self._refuse(refusal)

    @property
    def is_on(self) -> bool:
        """True if this connection is told of each change since its last command."""
        return self._is_on and not self.is_refused

    @property
    def may_sleep(self) -> bool:
        """True if no further claim need follow one that finds nothing, and Redis can end a BLMOVE."""
        return bool(self.client_id) and (self._is_on or self._is_due or self.is_refused)

    def watch(self, keys: Keys, queues: Iterable[str]) -> None:
        """Set the queues whose lists wake the claims."""
        names = [name for queue in queues for name in keys.sources(queue)]
        prefixes = covering_prefixes(names)
        if prefixes != self._prefixes:
            self._prefixes = prefixes
            self._is_on = self._is_due = self.is_asleep = False

    def commands(self, *, listens: bool = True) -> list[Sequence[Any]]:
        """Return the commands to send before the next claim: they switch tracking on or off, or there are none.

        `listens` is False for a worker that another one wakes.
        """
        self._was_woken = False
        if not listens:
            was_on, self._is_on = self._is_on, False
            return [("CLIENT", "TRACKING", "OFF")] if was_on else []
        if self._is_due and not self._is_on and not self.is_refused:
            self._is_on = True
            prefixes = [argument for prefix in self._prefixes for argument in ("PREFIX", prefix)]
            return [
                ("CLIENT", "TRACKING", "OFF"),  # prefixes cannot change while tracking is on
                ("CLIENT", "TRACKING", "ON", "REDIRECT", self._listener_id, "BCAST", *prefixes, "NOLOOP"),
            ]
        if self._is_on and self.is_busy:
            self._is_on = False
            return [("CLIENT", "TRACKING", "OFF")]
        return []

    def receive(self, replies: Iterable[Any]) -> None:
        """Process the replies to `commands`; a refusal is a ResponseError among them."""
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                self._refuse(reply)

    def _refuse(self, error: redis.ResponseError) -> None:
        if not self.is_refused:
            log.warning(
                "Redis refuses to notify of new jobs (%s); idle workers claim every %.2f s instead. Permit this "
                "user CLIENT TRACKING, CLIENT ID and the channel %s", error, POLL_SECONDS, INVALIDATION_CHANNEL,
            )  # fmt: skip
        self._is_on, self.is_refused = False, True

    @property
    def is_busy(self) -> bool:
        """True if tracking is to be switched off: claims keep finding jobs."""
        return self._claims_with_jobs >= _CLAIMS_UNTIL_OFF

    def record_claim(self, *, found_jobs: bool, listens: bool = True) -> None:
        """Record the result of a claim. After an empty one under tracking, claims sleep.

        So they do at once if another worker wakes this one, which does not listen.
        """
        if found_jobs:
            self._claims_with_jobs += 1
            self._is_due = False
            return
        self._claims_with_jobs = 0
        self._is_due = listens
        self.is_asleep = (self._is_on or self.is_refused or not listens) and not self._was_woken

    def listen(self) -> None:
        """Switch tracking on with the next claim, also if it finds jobs: this worker listens for others."""
        self._is_due = True

    def sleep(self) -> None:
        """Claim nothing until the next poll or notification."""
        self.is_asleep = True

    def wake(self) -> None:
        """Claim on the next turn of the event loop."""
        self.is_asleep = False
        self._was_woken = True


def covering_prefixes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the fewest of these names that are prefixes of all: Redis refuses prefixes that overlap."""
    chosen: list[str] = []
    for name in sorted(set(names)):
        if not (chosen and name.startswith(chosen[-1])):
            chosen.append(name)
    return tuple(chosen)
