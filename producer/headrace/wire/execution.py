"""The execution that led to an outcome, stored with the outcome so that a job can be explained later.

It is written in the same step as the outcome and costs no round trip, but some hundred bytes a job. Celery's
clients ignore it, except `worker`, which is their `AsyncResult.worker`.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from headrace.wire.attempts import Attempt
from headrace.wire.stored import DECODE_ERRORS


class Execution(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The attempt that ended a job. In JSON it is a list, which is short; new fields go last."""

    #: The name of the claim's lease: host, process and number of its owner.
    lease: str
    #: The moment of the claim: unix milliseconds, the server's clock.
    claimed_ms: int
    #: Jobs in the claim. 1: the job ran alone.
    claim_size: int
    #: The version that predicted, and its runtime. None: nothing was predicted.
    version: str | None = None
    runtime: str | None = None
    #: Milliseconds from the claim to the start of the predict call, and the duration of the call.
    started_ms: int = 0
    duration_ms: float = 0.0
    #: Instances in the predict call, which are those of all jobs of the batch.
    instances: int = 0
    #: The attempts before this one, oldest first.
    attempts: tuple[Attempt, ...] = ()

    def encode(self) -> msgspec.Raw:
        """Return the execution as JSON."""
        return msgspec.Raw(msgspec.json.encode(self))


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a stored outcome that tell how the job was completed."""

    #: The time of publishing, ISO 8601.
    date_done: str | None = None
    #: The name of the worker, as Celery knows it.
    worker: str | None = None
    execution: Execution | None = None

    @property
    def published_ms(self) -> int | None:
        """The time of publishing, unix milliseconds; None if it is missing or no ISO 8601."""
        try:
            moment = datetime.fromisoformat(self.date_done or "")
        except ValueError:
            return None
        # Celery writes no time zone for UTC.
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


_COMPLETION = msgspec.json.Decoder(Completion)


def decode_completion(stored: bytes) -> Completion:
    """Return the completion in a stored outcome; an empty one if no worker of Headrace stored it."""
    try:
        return _COMPLETION.decode(stored)
    except DECODE_ERRORS:
        return Completion()
