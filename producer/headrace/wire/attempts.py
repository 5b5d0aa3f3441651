"""The runs a job has behind it, as they travel with its message.

A message is never rewritten. One that ran and goes back travels as a frame: the byte 1, for each run
`cause,owner,milliseconds,company;`, a newline, and the message as it was. A frame without history is the message.
Where the worker chose the version, the cause is `cause@version`: the next run is of the same one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

#: The byte a frame with a history begins with; a message, being JSON, never does.
HISTORY_MARK = b"\x01"

#: A run lost with what ran it: whose fault that was is only known of a job that ran alone.
CRASH, LEASE_EXPIRED, TIMEOUT = "crash", "lease_expired", "timeout"
#: Before the name of the transient error a run ended in: `error:ConnectionResetError`.
ERROR_PREFIX = "error:"
#: No run: a person sent the job again, and what lies before no longer counts.
REPLAY = "replay"
#: No run: the worker that claimed the job could not run it, and gave it back for another that can.
REQUEUED = "requeued"

_FRAME = re.compile(rb"\x01((?:[^,;\n]+,[^,;\n]*,[0-9]{1,15},[0-9]{1,9};)+)\n")
_SEPARATORS = re.compile(r"[,;\s]")


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a job that did not end it, or a replay."""

    #: `crash`, `lease_expired`, `timeout`, `error:<name of the exception>`, `replay` or `requeued`.
    cause: str
    #: Who ran the job, or who sent it again.
    owner: str
    #: When the run ended: unix milliseconds, the server's clock.
    at_ms: int
    #: Jobs in the claim that ran; 1 is alone. 0 for a replay, which is no run.
    claim_size: int
    #: The version that ran, where the job named none: it keeps it.
    version: str | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the run took its process or its owner with it, or more time than it had."""
        return self.cause in {CRASH, LEASE_EXPIRED, TIMEOUT}


def decode_queued_message(queued_message: bytes) -> tuple[tuple[Attempt, ...], bytes]:
    """A frame's attempts, oldest first, and its message. What only looks like a frame is a message."""
    found = _FRAME.match(queued_message)
    if found is None:
        return (), queued_message
    parts = (entry.split(",") for entry in found[1].decode(errors="replace").rstrip(";").split(";"))
    attempts = tuple(
        Attempt(
            cause=cause.partition("@")[0],
            owner=owner,
            at_ms=int(at_ms),
            claim_size=int(company),
            version=cause.partition("@")[2] or None,
        )
        for cause, owner, at_ms, company in parts
    )
    return attempts, queued_message[found.end() :]


def encode_queued_message(attempts: Sequence[Attempt], message: bytes) -> bytes:
    """The frame of a message with these attempts; the message itself, if there are none."""
    if not attempts:
        return message
    written = "".join(
        f"{escape_field(_cause(attempt))},{escape_field(attempt.owner)},{attempt.at_ms},{attempt.claim_size};"
        for attempt in attempts
    )
    return HISTORY_MARK + written.encode(errors="replace") + b"\n" + message


def select_counted(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """The attempts that count: runs, since the job was last sent again by a person."""
    return tuple(attempt for attempt in _since_replay(attempts) if attempt.cause != REQUEUED)


def select_requeues(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """The last times, without a run between, that the job was given back for another worker."""
    since = _since_replay(attempts)
    last = max((place for place, attempt in enumerate(since) if attempt.cause != REQUEUED), default=-1)
    return tuple(since[last + 1 :])


def find_pinned_version(attempts: Sequence[Attempt]) -> str | None:
    """The version the job ran on, where it named none; it keeps it, also where an alias moved meanwhile."""
    return next((attempt.version for attempt in reversed(select_counted(attempts)) if attempt.version), None)


def _since_replay(attempts: Sequence[Attempt]) -> Sequence[Attempt]:
    last = max((place for place, attempt in enumerate(attempts) if attempt.cause == REPLAY), default=-1)
    return attempts[last + 1 :]


def _cause(attempt: Attempt) -> str:
    return f"{attempt.cause}@{attempt.version}" if attempt.version else attempt.cause


def must_run_alone(attempts: Sequence[Attempt]) -> bool:
    """Whether the job may have taken a process with it, so that it is to run with no other."""
    return any(attempt.is_lost for attempt in attempts)


def escape_field(text: str) -> str:
    """A text as it may stand in a frame."""
    return _SEPARATORS.sub("_", text)
