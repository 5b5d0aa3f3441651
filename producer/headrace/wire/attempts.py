r"""A queued message: the message of a job, and before it the attempts to run the job so far.

A message is never rewritten. When a job goes back to its queue after an attempt, its queued message is a line for
each attempt, the newest first, an empty line, and the message:

    \x01crash,host/1/ab,1700000000000,1\n        cause, owner, unix milliseconds, size of the claim
    \x01error:OSError@3,host/1/ab,1690000000000,64\n
    \n
    {"body": ...

Where the worker chose the version, the cause is `cause@version`: the next attempt runs the same version. Without
attempts, the queued message is the message itself.

A script adds an attempt without reading the message: it puts a line in front. Only Python reads the lines, and
only in messages of lists that no producer can write (`headrace.wire.queues.holds_histories`). In any other list,
the bytes are a message as a whole.

A delayed job is a digit, the index in `Keys.sources` of the list that it goes to when it is due, and its queued
message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from headrace.wire.queues import (
    FIRST_RETRIED_SOURCE,
    FIRST_SOURCE,
    ISOLATED_SOURCE,
    PRIORITY_STEPS,
    priority_index,
)

#: The first byte of each attempt of a queued message. A message never begins with it, as it is JSON.
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

#: The newest attempts that a history keeps: more than the largest `max_attempts` of a model. And of the requeues
#: since the last attempt, the first and this many of the newest, which hold all that decides on the next.
MAX_ATTEMPTS = 200
_MAX_REQUEUES = 8
#: Bytes of a field, and of the history that is read of a message: longer ones are no history.
_MAX_FIELD_BYTES = 256
MAX_HISTORY_BYTES = 4 * MAX_ATTEMPTS * _MAX_FIELD_BYTES

_ATTEMPT = re.compile(rb"([^,\n]{1,%d}),([^,\n]{0,%d}),([0-9]{1,15}),([0-9]{1,9})" % (2 * (_MAX_FIELD_BYTES,)))
_SEPARATORS = re.compile(r"[,\x01\s]")


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

    Bytes that begin with HISTORY_MARK but hold no valid attempts are a message as a whole. The time is linear in
    the length of the history, of which at most MAX_HISTORY_BYTES are read.
    """
    attempts: list[Attempt] = []
    position = 0
    while queued_message.startswith(HISTORY_MARK, position):
        end = queued_message.find(b"\n", position, MAX_HISTORY_BYTES)
        match = _ATTEMPT.fullmatch(queued_message, position + 1, max(end, 0))
        if match is None:
            return (), queued_message
        attempts.append(_decode_attempt(match))
        position = end + 1
    if not attempts or not queued_message.startswith(b"\n", position):
        return (), queued_message
    return tuple(reversed(attempts)), queued_message[position + 1 :]


def _decode_attempt(match: re.Match[bytes]) -> Attempt:
    cause, _, version = match[1].decode(errors="replace").partition("@")
    owner = match[2].decode(errors="replace")
    return Attempt(
        cause=cause, owner=owner, at_ms=int(match[3]), claim_size=int(match[4]), version=version or None
    )


def encode_queued_message(attempts: Sequence[Attempt], message: bytes) -> bytes:
    """Return the queued message of a message with these attempts; the message itself if there are none.

    Of more than MAX_ATTEMPTS, those are dropped that decide nothing: requeues before the last attempt, and then
    the oldest.
    """
    if not attempts:
        return message
    if len(attempts) > MAX_ATTEMPTS:
        runs = (attempt for attempt in attempts if attempt.cause != REQUEUED)
        attempts = (*runs, *select_requeues(attempts))[-MAX_ATTEMPTS:]
    return b"".join((*map(_encode_attempt, reversed(attempts)), b"\n", message))


def _encode_attempt(attempt: Attempt) -> bytes:
    cause = f"{attempt.cause}@{attempt.version}" if attempt.version else attempt.cause
    fields = (escape_field(cause), escape_field(attempt.owner), str(attempt.at_ms), str(attempt.claim_size))
    return HISTORY_MARK + ",".join(fields).encode() + b"\n"


def encode_delayed(source: int, queued_message: bytes) -> bytes:
    """Return the member of `Keys.delayed` of a job that goes to a source, an index in `Keys.sources`."""
    return b"%d%b" % (source, queued_message)


def decode_delayed(member: bytes) -> tuple[int, bytes]:
    """Return the source that a delayed job goes to, and its queued message.

    A member of another form is a message of no history that goes to the list of priority 0.
    """
    source = member[:1]
    if source.isdigit() and int(source) < FIRST_RETRIED_SOURCE + len(PRIORITY_STEPS):
        return int(source), member[1:]
    return FIRST_SOURCE, member


def select_source(attempts: Sequence[Attempt], priority: int) -> int:
    """Return the index in `Keys.sources` of the list that a job with these attempts goes to.

    `priority` is any number, as any Celery client may have written it.
    """
    if must_run_alone(attempts):
        return ISOLATED_SOURCE
    index = priority_index(min(max(priority, PRIORITY_STEPS[0]), PRIORITY_STEPS[-1]))
    return index + (FIRST_RETRIED_SOURCE if attempts else FIRST_SOURCE)


def select_counted(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Return the attempts that count against the limit: those since the last replay, without requeues."""
    return tuple(attempt for attempt in _since_replay(attempts) if attempt.cause != REQUEUED)


def select_requeues(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Return the requeues since the last attempt or replay."""
    recent = _since_replay(attempts)
    last = max((index for index, attempt in enumerate(recent) if attempt.cause != REQUEUED), default=-1)
    return tuple(recent[last + 1 :])


def add_requeue(attempts: Sequence[Attempt], requeue: Attempt) -> tuple[Attempt, ...]:
    """Return the attempts with one requeue more. Of many since the last attempt, the middle ones are dropped."""
    requeues = (*select_requeues(attempts), requeue)
    earlier = attempts[: len(attempts) + 1 - len(requeues)]
    return (*earlier, *requeues[:1], *requeues[1:][-_MAX_REQUEUES:])


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
    safe = _SEPARATORS.sub("_", text)
    return safe.encode(errors="replace")[:_MAX_FIELD_BYTES].decode(errors="ignore")


def _since_replay(attempts: Sequence[Attempt]) -> Sequence[Attempt]:
    last = max((index for index, attempt in enumerate(attempts) if attempt.cause == REPLAY), default=-1)
    return attempts[last + 1 :]
