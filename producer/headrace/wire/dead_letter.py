"""A dead letter: a job that failed for good, kept whole with its history until it is replayed or purged.

It lies in Redis in three places, so that a listing reads no message:

    headrace:dead            hash: letter id -> the letter as one line of JSON (`Letter.encode`)
    headrace:dead:messages   hash: letter id -> the message, byte for byte, without the history before it
    headrace:dead:times            sorted set: letter id by the moment it died, the server's unix milliseconds

A letter's id is its job's. A message that is no job has none: its letter is called by `malformed_id`. No
value of an instance is in the line; the message holds them.
"""

from __future__ import annotations

import hashlib

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.attempts import Attempt
from headrace.wire.outcome import Reason


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A job that failed for good: what failed, why, where, and what was tried."""

    id: str
    #: None where the message is none of a job, or its arguments name no model.
    model: str | None = None
    #: The version that ran, or that was asked for; None where neither is known.
    version: str | None = None
    #: The queue the job came from, and goes back to.
    queue: str
    reason: Reason
    #: Name and module of the exception, and its message, without a value of an instance.
    error: str
    module: str
    message: str
    #: Where it was raised, for errors of a model.
    traceback: str | None = None
    #: Instances of the job; None where that cannot be told.
    instances: int | None = None
    #: Host of the worker that ended it.
    worker: str
    #: The moment it died, unix milliseconds. 0 as it is written: the score in `headrace:dead:times` says it.
    died_ms: int = 0
    #: The runs that were lost or met an error worth another run, and the replays between them, oldest first.
    attempts: tuple[Attempt, ...] = ()
    #: The submitter's metadata.
    metadata: dict[str, str] | None = None

    def encode(self) -> bytes:
        """The letter as a line of JSON, without the newline."""
        return msgspec.json.encode(self)


class DeadLetterWithMessage(DeadLetter, frozen=True, kw_only=True):
    """A letter with its message; as JSON it is what `headrace dead export` writes, a line each."""

    #: The message as it lay in the queue, byte for byte; base64 in JSON.
    payload: bytes


_LETTER = msgspec.json.Decoder(DeadLetter)
_KEPT = msgspec.json.Decoder(DeadLetterWithMessage)


def malformed_letter_id(message: bytes) -> str:
    """What the letter of a message that is no job is called; the same bytes twice are one letter."""
    return f"malformed-{hashlib.sha256(message).hexdigest()[:16]}"


def malformed_letter(
    message: bytes, error: Exception, *, queue: str, worker: str, attempts: tuple[Attempt, ...] = ()
) -> DeadLetter:
    """The letter of a message that is no job, for what reading it raised."""
    return DeadLetter(
        id=malformed_letter_id(message),
        queue=queue,
        reason="malformed",
        error=type(error).__name__,
        module=type(error).__module__,
        message=str(error),
        worker=worker,
        attempts=attempts,
    )


def decode_letter(letter: str, line: bytes, died_ms: int) -> DeadLetter:
    """The letter in a line. One that cannot be read, whoever wrote it, is still listed, and can be purged."""
    try:
        found = _LETTER.decode(line)
    except (msgspec.DecodeError, RecursionError):
        found = DeadLetter(
            id=letter,
            queue="",
            reason="malformed",
            error="InvalidLetter",
            module="headrace",
            message="what is stored as this letter is none of Headrace",
            worker="",
        )
    return msgspec.structs.replace(found, id=letter, died_ms=died_ms)


def attach_message(letter: DeadLetter, payload: bytes) -> DeadLetterWithMessage:
    """A letter and its message as one."""
    return DeadLetterWithMessage(payload=payload, **msgspec.structs.asdict(letter))


def decode_exported(line: bytes | str) -> DeadLetterWithMessage:
    """The letter in a line of an export. Raises InvalidInput."""
    try:
        return _KEPT.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(f"this line is no exported dead letter: {error}") from None
