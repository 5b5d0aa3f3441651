"""A queued message: the message of a job, and before it the attempts to run the job so far.

A message is never rewritten. When a job goes back to its queue after an attempt, its queued message is the byte 1,
`cause,owner,milliseconds,claim_size;` for each attempt, a newline, and the message. Where the worker chose the
version, the cause is `cause@version`: the next attempt runs the same version. Without attempts, the queued message
is the message itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

#: The first byte of a queued message with attempts. A message never begins with it, as it is JSON.
HISTORY_MARK = b"\x01"

#: Causes of an attempt that ended without its worker's doing: the process died, the lease expired, the time limit
#: was exceeded. Unless the job ran alone, any job of the claim may be the one that failed.
CRASH, LEASE_EXPIRED, TIMEOUT = "crash", "lease_expired", "timeout"
#: The start of the cause of an attempt that met a transient error: `error:ConnectionResetError`.
ERROR_PREFIX = "error:"
#: The cause of an entry that is no attempt: an operator replayed the job. Earlier attempts do not count.
REPLAY = "replay"
#: The cause of an entry that is no attempt: the worker could not run the job, and requeued it for another worker.
REQUEUED = "requeued"

_QUEUED_MESSAGE = re.compile(rb"\x01((?:[^,;\n]+,[^,;\n]*,[0-9]{1,15},[0-9]{1,9};)+)\n")
_SEPARATORS = re.compile(r"[,;\s]")


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that did not end the job, a replay, or a requeue."""

    #: `crash`, `lease_expired`, `timeout`, `error:<name of the exception>`, `replay` or `requeued`.
    cause: str
    #: The owner of the lease the job ran under; of a replay, the user and host that replayed the job.
    owner: str
    #: The end of the attempt: unix milliseconds, the server's clock.
    at_ms: int
    #: Jobs in the claim that ran. 1: the job ran alone. 0: a replay, nothing ran.
    claim_size: int
    #: The version that ran, if the job names none. The next attempt runs the same version.
    version: str | None = None

    @property
    def is_lost(self) -> bool:
        """True if the attempt ended in a crash, an expired lease or a timeout."""
        return self.cause in {CRASH, LEASE_EXPIRED, TIMEOUT}


def decode_queued_message(queued_message: bytes) -> tuple[tuple[Attempt, ...], bytes]:
    """Return the attempts in a queued message, oldest first, and the message.

    Bytes that begin with HISTORY_MARK but hold no valid attempts are a message as a whole.
    """
    match = _QUEUED_MESSAGE.match(queued_message)
    if match is None:
        return (), queued_message
    entries = (entry.split(",") for entry in match[1].decode(errors="replace").rstrip(";").split(";"))
    attempts = tuple(
        Attempt(
            cause=cause.partition("@")[0],
            owner=owner,
            at_ms=int(at_ms),
            claim_size=int(claim_size),
            version=cause.partition("@")[2] or None,
        )
        for cause, owner, at_ms, claim_size in entries
    )
    return attempts, queued_message[match.end() :]


def encode_queued_message(attempts: Sequence[Attempt], message: bytes) -> bytes:
    """Return the queued message of a message with these attempts; the message itself if there are none."""
    if not attempts:
        return message
    history = "".join(map(_encode_attempt, attempts))
    return HISTORY_MARK + history.encode(errors="replace") + b"\n" + message


def select_counted(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Return the attempts that count against the limit: those since the last replay, without requeues."""
    return tuple(attempt for attempt in _since_replay(attempts) if attempt.cause != REQUEUED)


def select_requeues(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Return the requeues since the last attempt or replay."""
    recent = _since_replay(attempts)
    last = max((index for index, attempt in enumerate(recent) if attempt.cause != REQUEUED), default=-1)
    return tuple(recent[last + 1 :])


def find_pinned_version(attempts: Sequence[Attempt]) -> str | None:
    """Return the version that a job without a version ran on, or None if it did not run.

    The job stays on that version, even if an alias has moved since.
    """
    return next((attempt.version for attempt in reversed(select_counted(attempts)) if attempt.version), None)


def must_run_alone(attempts: Sequence[Attempt]) -> bool:
    """Decide whether a job must run alone, as it may have crashed or blocked a process."""
    return any(attempt.is_lost for attempt in attempts)


def escape_field(text: str) -> str:
    """Return a text that is safe as a field of an attempt: separators and white space become `_`."""
    return _SEPARATORS.sub("_", text)


def _since_replay(attempts: Sequence[Attempt]) -> Sequence[Attempt]:
    last = max((index for index, attempt in enumerate(attempts) if attempt.cause == REPLAY), default=-1)
    return attempts[last + 1 :]


def _encode_attempt(attempt: Attempt) -> str:
    cause = f"{attempt.cause}@{attempt.version}" if attempt.version else attempt.cause
    return f"{escape_field(cause)},{escape_field(attempt.owner)},{attempt.at_ms},{attempt.claim_size};"
