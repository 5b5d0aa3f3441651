"""A dead letter: a job that failed for good, kept with its message and attempts until it is replayed or purged.

It is stored under three keys, so that listing dead letters reads no messages, and in a share (`Keys.dead_share`):

    headrace:dead            hash: letter id -> the letter as a line of JSON (`DeadLetter.encode`)
    headrace:dead:messages   hash: letter id -> the message, byte for byte, without the attempts before it
    headrace:dead:times      sorted set: letter id by the moment the job failed, the server's unix milliseconds

The id of a letter is the id of its job. If there is such a letter already, of an earlier job with the same id, the
second letter is kept beside it as `<id>~2`. A malformed message has no job id: `malformed_letter_id` makes one.
The line holds no value of an instance; only the message does.
"""

from __future__ import annotations

import hashlib

import msgspec

from headrace.errors import InvalidInput
from headrace.wire.attempts import Attempt, select_counted
from headrace.wire.outcome import Reason
from headrace.wire.stored import DECODE_ERRORS


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A job that failed for good: what failed, where, for which reason, and after which attempts."""

    #: Unique: the id of its job, or this id and `~2` for a second letter of the same id.
    id: str
    #: The id of its job; of a malformed message, the id of the first letter.
    job: str = ""
    #: None: the message is malformed, or its arguments name no model.
    model: str | None = None
    #: The version that ran, or else the version the job names.
    version: str | None = None
    #: The queue the job came from; a replay puts it there.
    queue: str
    reason: Reason
    #: Name and module of the exception, and its message, without values of instances.
    error: str
    module: str
    message: str
    #: The traceback of an error of the model.
    traceback: str | None = None
    #: The number of instances; None if it is unknown.
    instances: int | None = None
    #: Host of the worker that ended the job.
    worker: str
    # It is 0 in the stored line: `headrace:dead:times` holds the moment.
    #: The moment the job failed, unix milliseconds.
    died_ms: int = 0
    #: The lost attempts, the attempts that met a transient error, and the replays; oldest first.
    attempts: tuple[Attempt, ...] = ()
    #: Runs since the submission or the last replay, one that ended the job included; None where nothing tells.
    runs: int | None = None
    #: Text pairs of the submitter's own.
    metadata: dict[str, str] | None = None

    def __post_init__(self) -> None:
        """Take the id for that of the job, unless it is given."""
        if not self.job:
            msgspec.structs.force_setattr(self, "job", self.id)

    @property
    def is_malformed(self) -> bool:
        """True if the message holds no job that could run."""
        return self.reason == "malformed"

    def encode(self) -> bytes:
        """Return the letter as a line of JSON, without a newline."""
        return msgspec.json.encode(self)


class DeadLetterWithMessage(DeadLetter, frozen=True, kw_only=True):
    """A dead letter with its message. `headrace dead export` writes its JSON, a line each."""

    #: The message as it was in the queue, byte for byte; base64 in JSON.
    payload: bytes


_LETTER = msgspec.json.Decoder(DeadLetter)
_EXPORTED_LETTER = msgspec.json.Decoder(DeadLetterWithMessage)


def malformed_letter_id(message: bytes) -> str:
    """Return the letter id of a malformed message; equal messages have equal ids."""
    return f"malformed-{hashlib.sha256(message).hexdigest()[:16]}"


def malformed_letter(
    message: bytes, error: Exception, *, queue: str, worker: str, attempts: tuple[Attempt, ...] = ()
) -> DeadLetter:
    """Return the dead letter of a malformed message. `error` is what parsing it raised."""
    return DeadLetter(
        id=malformed_letter_id(message),
        queue=queue,
        reason="malformed",
        error=type(error).__name__,
        module=type(error).__module__,
        message=str(error),
        worker=worker,
        attempts=attempts,
        runs=len(select_counted(attempts)),
    )


def decode_letter(letter_id: str, line: bytes, died_ms: int) -> DeadLetter:
    """Decode the letter in a line. A line that is no letter becomes a letter too, so that it can be purged."""
    try:
        letter = _LETTER.decode(line)
    except DECODE_ERRORS:
        letter = DeadLetter(
            id=letter_id,
            queue="",
            reason="malformed",
            error="InvalidLetter",
            module="headrace",
            message="the line stored as this dead letter was not written by Headrace",
            worker="",
        )
    return msgspec.structs.replace(letter, id=letter_id, died_ms=died_ms)


def attach_message(letter: DeadLetter, payload: bytes) -> DeadLetterWithMessage:
    """Return a letter with its message attached."""
    return DeadLetterWithMessage(payload=payload, **msgspec.structs.asdict(letter))


def decode_exported(line: bytes | str) -> DeadLetterWithMessage:
    """Decode a line of `headrace dead export`. Raises InvalidInput."""
    try:
        return _EXPORTED_LETTER.decode(line)
    except DECODE_ERRORS as error:
        raise InvalidInput(f"the line is not an exported dead letter: {error}") from None
