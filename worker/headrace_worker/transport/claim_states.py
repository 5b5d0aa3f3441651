"""The states of a claim loop, and the requests whose replies are pending."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import ClassVar

import msgspec

from headrace_worker.transport.claims import ClaimLimits, Lease


class State(Enum):
    """The state of a claim loop."""

    #: Nothing is sent.
    IDLE = "idle"
    #: A claim is sent, its reply is pending.
    SENT = "sent"
    #: A BLMOVE is sent, its reply is pending.
    BLOCKING = "blocking"
    #: A BLPOP at the token lists is sent, its reply is pending.
    WAITING = "waiting"


class SentClaim(msgspec.Struct, frozen=True):
    """A claim whose reply is pending."""

    state: ClassVar[State] = State.SENT
    seconds: ClassVar[float] = 0.0
    #: The name of its lease.
    name: str
    limits: Sequence[ClaimLimits]
    #: The number of replies that come before that of the claim.
    earlier_replies: int
    #: The function of its script.
    function: str
    #: The number of the first replies that do not matter.
    ignored_replies: int = 0

    @property
    def replies(self) -> int:
        """The number of replies to the commands before, to its script, and with its messages."""
        return self.earlier_replies + 2


class SentWait(msgspec.Struct, frozen=True):
    """A wait for a token whose reply is pending."""

    state: ClassVar[State] = State.WAITING
    earlier_replies: int
    #: The seconds for which Redis may keep the reply back.
    seconds: float
    #: The queues by the keys of their tokens.
    queues: dict[bytes, str]

    @property
    def replies(self) -> int:
        """The number of replies to it and to the commands before."""
        return self.earlier_replies + 1


class SentLook(msgspec.Struct, frozen=True):
    """A look whether anything waits, whose replies are pending."""

    state: ClassVar[State] = State.SENT
    seconds: ClassVar[float] = 0.0
    earlier_replies: int
    #: True if it takes the watch, if that is free.
    takes_watch: bool
    #: The claim that is sent with it to park a lease; None without.
    claim: SentClaim | None

    @property
    def replies(self) -> int:
        """The number of replies to it and to the commands before: two, and those of the claim."""
        return self.earlier_replies + 2 + (0 if self.claim is None else self.claim.replies)


class SentBlocking(msgspec.Struct, frozen=True):
    """A BLMOVE into the parked lease whose replies are pending."""

    state: ClassVar[State] = State.BLOCKING
    lease: Lease
    seconds: float
    replies: int


#: A request whose replies are pending. `replies` is their number, `seconds` how long Redis may keep them back.
Sent = SentClaim | SentWait | SentLook | SentBlocking


class Step(Enum):
    """The next request of the loop, unless it sleeps."""

    #: A claim of all queues.
    CLAIM_ALL = "claim all"
    #: A claim of the queues that changed; a look if none did.
    CLAIM_CHANGED = "claim changed"
    #: A claim of the queues that changed; of all if none did, or if nothing is found.
    CLAIM_CHANGED_THEN_ALL = "claim changed, then all"
